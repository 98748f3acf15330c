"""Finds a Python that can train: with torch for CUDA where there is a card, or makes one from the wheels of the pack.

Looked for in this order: $PYTHON; the interpreter that runs this; an environment made from wheels that were carried
along (no index is asked); in the repository, without a card, the cached one of the tests.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "numpy")
PROBE = f"""
import importlib.metadata, json, platform, torch, transformers, peft, bitsandbytes
versions = {{name: importlib.metadata.version(name) for name in {PACKAGES!r}}}
found = dict(versions=versions, python=platform.python_version(), cuda=torch.version.cuda,
             available=torch.cuda.is_available())
print("\\n" + json.dumps(found))
"""


@dataclasses.dataclass
class Interpreter:
    path: pathlib.Path
    versions: dict
    python: str
    cuda: str | None
    available: bool


def probe(path: str | pathlib.Path) -> Interpreter | str:
    """What is there, or what is wrong with it."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        result = subprocess.run([str(path), "-c", PROBE], capture_output=True, text=True, env=environment)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if result.returncode:
        return f"{path}: {(result.stderr.strip().splitlines() or ['it ended without a word'])[-1]}"
    return Interpreter(pathlib.Path(path), **json.loads(result.stdout.strip().splitlines()[-1]))


def wheels() -> pathlib.Path | None:
    folder = pathlib.Path(os.environ.get("WHEELS_DIR") or ROOT / "wheels")
    return folder if any(folder.glob("torch-*.whl")) else None


def from_wheels(folder: pathlib.Path, work: pathlib.Path) -> pathlib.Path:
    """Made once for a set of wheels; the marker is written last."""
    names = sorted(path.name for path in folder.glob("*.whl"))
    digest = hashlib.sha256("\n".join([*names, sys.base_prefix]).encode()).hexdigest()[:12]
    place = work / f"python-{digest}"
    python, complete = place / "bin/python", place / "complete"
    if complete.exists():
        return python
    print(f"gpu-proof: installing {len(names)} wheels into {place}", flush=True)
    work.mkdir(parents=True, exist_ok=True)
    commands = [
        [sys.executable, "-m", "venv", "--clear", place],
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-index", "--no-deps",
         "--find-links", folder, *sorted(folder.glob("*.whl"))],
    ]
    # Settings of pip that name other places would be asked too.
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    for command in commands:
        result = subprocess.run([str(part) for part in command], stdout=sys.stderr, env=settings)
        if result.returncode:
            tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
            sys.exit(f"gpu-proof: the wheels do not install into Python {sys.version.split()[0]} ({sys.executable}); "
                     f"they are for the Python that packed them, this one is {tag}: set PYTHON to a matching one")
    complete.touch()
    return python


def candidates(work: pathlib.Path, has_card: bool):
    if os.environ.get("PYTHON"):
        yield os.environ["PYTHON"]
        if has_card:
            return
    yield sys.executable
    if folder := wheels():
        yield from_wheels(folder, work)
    tests = ROOT / "Tests/Interop/environment.py"
    if not has_card and (ROOT / "Package.swift").exists():
        result = subprocess.run([sys.executable, str(tests)], stdout=subprocess.PIPE, text=True)
        if result.returncode == 0:
            yield result.stdout.strip()


def find(work: pathlib.Path, has_card: bool) -> Interpreter:
    refused = []
    for path in candidates(work, has_card):
        found = probe(path)
        if isinstance(found, str):
            refused.append(found)
        elif has_card and not found.available:
            build = f"built for CUDA {found.cuda}, which the driver does not serve" if found.cuda else "without CUDA"
            refused.append(f"{path}: torch {found.versions['torch']} is {build}")
        else:
            return found
    what = "PyTorch for CUDA, transformers, peft, bitsandbytes and accelerate" if has_card else "PyTorch and the rest"
    lines = "\n  ".join(refused)
    sys.exit(f"gpu-proof: no Python with {what}; name one in PYTHON, or carry wheels (make gpu-proof-pack)\n  {lines}")
