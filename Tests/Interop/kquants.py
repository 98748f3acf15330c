"""The encoders of ggml's K-quants, ours beside ggml's own, both called in this process.

Ours are the kernels alone, compiled here; ggml's are those that xllamacpp's extension module exports.
Nothing heavy is imported, for the benchmark's sake.
"""

import ctypes
import os
import pathlib
import subprocess

import numpy as np
import xllamacpp.xllamacpp as extension

KERNELS = pathlib.Path(__file__).resolve().parents[2] / "Sources" / "Kernels"

# Values and bytes of a block.
TYPES = {
    "q2_K": (256, 84), "q3_K": (256, 110), "q4_K": (256, 144), "q5_K": (256, 176), "q6_K": (256, 210),
    "iq4_nl": (32, 18), "iq4_xs": (256, 136),
}


def pointer(array):
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


class Encoders:
    def __init__(self, folder: pathlib.Path):
        """Compiles the kernels into `folder`, for the machine at hand, which must see no product fused with a sum."""
        library = folder / "kquants.so"
        command = [
            os.environ.get("CXX", "g++"), "-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fPIC", "-shared",
            "-DHWY_COMPILE_ONLY_STATIC", f"-I{KERNELS / 'include'}", "-o", str(library),
            *(str(KERNELS / name) for name in ("kquants.cpp", "kquants_small.cpp", "iq4.cpp", "targets.cpp")), "-lhwy",
        ]
        subprocess.run(command, check=True)
        self.kernels = ctypes.CDLL(str(library))
        self.ggml = ctypes.CDLL(extension.__file__)

    def ours(self, name: str, values: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        blocks = self.room(name, values, importance)
        rows, columns = values.shape
        encode = getattr(self.kernels, f"nibble_encode_{name.lower()}")
        encode.restype = None
        encode(
            pointer(values), ctypes.c_size_t(rows), ctypes.c_size_t(columns), pointer(importance), pointer(blocks))
        return blocks

    def theirs(self, name: str, values: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        blocks = self.room(name, values, importance)
        rows, columns = values.shape
        encode = getattr(self.ggml, f"quantize_{name}")
        encode.restype = ctypes.c_size_t
        written = encode(
            pointer(values), pointer(blocks), ctypes.c_int64(rows), ctypes.c_int64(columns), pointer(importance))
        assert written == blocks.size
        return blocks

    def room(self, name: str, values: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        block, size = TYPES[name]
        assert values.dtype == np.float32 and values.flags.c_contiguous and values.shape[1] % block == 0
        assert importance is None or (importance.dtype == np.float32 and importance.shape == values.shape[1:])
        return np.full((values.size // block, size), 0xA5, np.uint8)

    def decode(self, name: str, blocks: np.ndarray) -> np.ndarray:
        """By ggml."""
        values = np.zeros(len(blocks) * TYPES[name][0], np.float32)
        getattr(self.ggml, f"dequantize_row_{name}")(pointer(blocks), pointer(values), ctypes.c_int64(values.size))
        return values
