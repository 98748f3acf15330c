"""In the place of the package `zstandard`, which PyTorch's extension for compressed checkpoints imports: frames by the
system's own library."""

import ctypes
import ctypes.util
import importlib.machinery
import io
import sys
import types


def library() -> ctypes.CDLL:
    found = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
    found.ZSTD_compressBound.restype = found.ZSTD_compress.restype = ctypes.c_size_t
    found.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
    found.ZSTD_compress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    return found


class Writer(io.BytesIO):
    """What is written to it becomes one frame when it is closed."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def close(self) -> None:
        if self.closed:
            return
        zstd, data = library(), self.getvalue()
        room = ctypes.create_string_buffer(zstd.ZSTD_compressBound(len(data)))
        count = zstd.ZSTD_compress(room, len(room), data, len(data), 3)
        self.output.write(room.raw[:count])
        super().close()


class ZstdCompressor:
    def stream_writer(self, output) -> Writer:
        return Writer(output)


def install() -> None:
    """Before `torch.distributed.checkpoint` is imported."""
    module = types.ModuleType("zstandard")
    module.__spec__ = importlib.machinery.ModuleSpec("zstandard", None)
    module.ZstdCompressor = ZstdCompressor
    sys.modules["zstandard"] = module
