"""Finds a Python that can train: with torch for CUDA where there is a card, or makes one from the wheels of the pack.

Looked for in this order: $PYTHON; an environment made by it, or by the interpreter that runs this, from wheels that
were carried along (no index is asked); that interpreter; in the repository, without a card, the cached one of the
tests.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "numpy")
# Without a card nothing is imported: that takes long, and only a card tells whether torch can use it.
PROBE = f"""
import importlib.metadata, importlib.util, json, pathlib, platform, runpy, sys
versions = {{name: importlib.metadata.version(name) for name in {PACKAGES!r}}}
folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent
found = dict(versions=versions, python=platform.python_version(), available=False,
             cuda=runpy.run_path(str(folder / "version.py")).get("cuda"))
if sys.argv[1] == "import":
    import torch, transformers, peft, bitsandbytes
    found["available"] = torch.cuda.is_available()
print("\\n" + json.dumps(found))
"""


@dataclasses.dataclass
class Interpreter:
    path: pathlib.Path
    versions: dict
    python: str
    cuda: str | None
    available: bool


def probe(path: str | pathlib.Path, has_card: bool) -> Interpreter | str:
    """What is there, or what is wrong with it."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [str(path), "-c", PROBE, "import" if has_card else "look"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if result.returncode:
        return f"{path}: {(result.stderr.strip().splitlines() or ['it ended without a word'])[-1]}"
    return Interpreter(pathlib.Path(path), **json.loads(result.stdout.strip().splitlines()[-1]))


def wheels() -> pathlib.Path | None:
    folder = pathlib.Path(os.environ.get("WHEELS_DIR") or ROOT / "wheels")
    return folder if any(folder.glob("torch-*.whl")) else None


def from_wheels(folder: pathlib.Path, base: str, work: pathlib.Path) -> pathlib.Path | str:
    """Made once for a set of wheels and a Python; the marker is written last. Or what went wrong.

    pip comes along as a wheel and runs from it, because a bare machine's Python has neither pip nor ensurepip.
    """
    names = sorted(path.name for path in folder.glob("*.whl"))
    version = subprocess.run([base, "--version"], capture_output=True, text=True).stdout.strip()
    digest = hashlib.sha256("\n".join([*names, base, version]).encode()).hexdigest()[:12]
    place = work / f"python-{digest}"
    python, complete = place / "bin/python", place / "complete"
    if complete.exists():
        return python
    print(f"gpu-proof: installing the carried wheels into {place}", flush=True)
    work.mkdir(parents=True, exist_ok=True)
    # No setting of pip that names an index or another folder may be heard.
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    settings |= {"PYTHONPATH": str(next(folder.glob("pip-*.whl"))), "PIP_CONFIG_FILE": os.devnull}
    commands = [
        [base, "-m", "venv", "--clear", "--without-pip", place],
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-index",
         "--find-links", folder, "--requirement", folder / "requirements.txt"],
    ]
    for command in commands:
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=settings)
        if result.returncode:
            # pip says first which requirement no wheel serves.
            errors = [line for line in result.stderr.splitlines() if "ERROR" in line] or result.stderr.splitlines()[-1:]
            tags = sorted({name.split("-")[-3] for name in names if name.startswith("torch-")})
            return f"the carried wheels ({', '.join(tags)}) do not install into {base} ({version}): {' '.join(errors)}"
    complete.touch()
    return python


def candidates(work: pathlib.Path, has_card: bool):
    """Interpreters, or in words why there is none."""
    named = os.environ.get("PYTHON")
    if named:
        yield shutil.which(named) or named
    if folder := wheels():
        yield from_wheels(folder, shutil.which(named) if named and shutil.which(named) else sys.executable, work)
    yield sys.executable
    tests = ROOT / "Tests/Interop/environment.py"
    if not has_card and (ROOT / "Package.swift").exists():
        result = subprocess.run([sys.executable, str(tests)], stdout=subprocess.PIPE, text=True)
        if result.returncode == 0:
            yield result.stdout.strip()


def find(work: pathlib.Path, has_card: bool) -> Interpreter:
    refused = []
    for path in candidates(work, has_card):
        found = probe(path, has_card) if os.path.exists(path) else str(path)
        if isinstance(found, str):
            refused.append(found)
        elif int(found.versions["transformers"].split(".")[0]) < 5:
            refused.append(f"{path}: transformers {found.versions['transformers']}, 5 or newer is needed")
        elif has_card and not found.available:
            build = f"built for CUDA {found.cuda}, which the driver does not serve" if found.cuda else "without CUDA"
            refused.append(f"{path}: torch {found.versions['torch']} is {build}")
        else:
            return found
    what = "PyTorch for CUDA, transformers, peft, bitsandbytes and accelerate" if has_card else "PyTorch and the rest"
    lines = "\n  ".join(refused)
    sys.exit(f"gpu-proof: no Python with {what}; name one in PYTHON, or carry wheels (make gpu-proof-pack)\n  {lines}")
