"""llama.cpp's own programs, to measure against: found, or built once into the cache."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "Interop"))
from environment import cache

VERSION = "0.3.36"


def llama_quantize() -> str | None:
    """$LLAMA_QUANTIZE, the one on the PATH, or one built from the source distribution of llama-cpp-python; None, with a
    word, where there is none of these."""
    if named := os.environ.get("LLAMA_QUANTIZE") or shutil.which("llama-quantize"):
        return named
    built = cache() / f"llama-quantize-{VERSION}"
    if not built.exists():
        missing = [name for name in ("cmake", "c++") if not shutil.which(name)]
        if missing:
            print(f"skipped: llama-quantize is not here, and without {' and '.join(missing)} it cannot be built")
            return None
        print("building llama-quantize, which takes minutes", flush=True)
        try:
            build(built)
        except subprocess.CalledProcessError as error:
            print(f"skipped: llama-quantize does not build here ({error})")
            return None
    return str(built)


def build(out: pathlib.Path) -> None:
    import gguf_oracle

    with tempfile.TemporaryDirectory(dir=cache()) as name:
        folder = pathlib.Path(name)
        source = gguf_oracle.source(folder)
        command = [
            "cmake", "-S", source, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF",
            "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DBUILD_SHARED_LIBS=OFF",
        ]
        # Thousands of warnings.
        silence = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, **silence)
        target = ["--target", "llama-quantize", "--parallel", str(os.cpu_count())]
        subprocess.run(["cmake", "--build", folder / "build", *target], **silence)
        shutil.move(folder / "build/bin/llama-quantize", out)
