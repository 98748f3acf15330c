"""Runs the tests marked `kernels` as other processors would: `make test-cpus`.

What Nibble is compared with, and the BLAS that it multiplies with, compute by kernels chosen for the processor, and no two
of them add up in the same order. Each setting has them choose those of another processor, as far as this one can run them.
Arguments are handed on to pytest.
"""

import dataclasses
import os
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass
class Setting:
    name: str
    features: set[str]  # as Linux names them
    aten: str
    onednn: str
    openblas: str
    mkl: str = "AUTO"

    @property
    def variables(self) -> dict[str, str]:
        return {"ATEN_CPU_CAPABILITY": self.aten, "ONEDNN_MAX_CPU_ISA": self.onednn, "OPENBLAS_CORETYPE": self.openblas,
                "MKL_CBWR": self.mkl}


# OpenBLAS computes on Zen what it does on Haswell, bit for bit. MKL, with which PyTorch multiplies in float32, takes the
# same kernels of another maker's processor whatever it is asked for, but for those that every processor has.
SETTINGS = {
    "x86_64": [
        Setting("without AVX", {"ssse3", "sse4_1"}, "default", "SSE41", "Nehalem", "COMPATIBLE"),
        Setting("AVX2", {"avx2", "fma"}, "avx2", "AVX2", "Haswell", "AVX2"),
        Setting("AVX-512", {"avx512f", "avx512dq", "avx512bw", "avx512vl"}, "avx512", "AVX512_CORE", "SkylakeX", "AVX512"),
    ],
    "aarch64": [
        Setting("ARMv8", {"asimd"}, "default", "DEFAULT", "ARMV8"),
        Setting("Neoverse N1", {"asimd", "asimddp"}, "default", "DEFAULT", "NEOVERSEN1"),
    ],
}

# What libraries then say that they took.
PROBE = """
import ctypes, torch
try:
    library = ctypes.CDLL("libopenblas.so.0")
    library.openblas_get_corename.restype = ctypes.c_char_p
    core = library.openblas_get_corename().decode()
except (OSError, AttributeError):
    core = "not loaded"
print(f"torch {torch.backends.cpu.get_cpu_capability()}, OpenBLAS {core}")
"""


# Products and decompositions by themselves; then what becomes of them.
COMMANDS = [
    ["swift", "test", "--skip-build", "--filter", "^AdaptersTests"],
    [sys.executable, "-m", "pytest", "-q", "-m", "kernels", str(HERE), *sys.argv[1:]],
]


def features() -> set[str]:
    """Of this machine's processor; none where Linux does not tell."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split(":", 1)[1].split()}


def main() -> int:
    known, failed, ran = features(), [], 0
    for setting in SETTINGS.get(platform.machine(), []):
        if missing := setting.features - known:
            print(f"{setting.name}: skipped, this machine has no {', '.join(sorted(missing))}", flush=True)
            continue
        environment = os.environ | setting.variables
        taken = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
        words = " ".join(f"{name}={value}" for name, value in setting.variables.items())
        print(f"{setting.name}: {words}: {taken.stdout.strip()}", flush=True)
        ran += 1
        if any([subprocess.run(command, cwd=HERE.parents[1], env=environment).returncode for command in COMMANDS]):
            failed.append(setting.name)
    if not ran:
        print("no other kernels are known for this machine")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
