"""Prints the interpreter of a cached virtual environment that holds requirements.txt.

With the argument `lint`, of the small one that holds lint.txt. An environment is built on first use, under $NIBBLE_CACHE (default ${XDG_CACHE_HOME:-~/.cache}/nibble),
in a folder named after a hash of the requirements and of this interpreter: another set of pins is
another folder. The folder `transformers-4` in it is the overlay of transformers-4.txt. pip is called
with its own settings (index, find-links, proxy), so a site that supplies its own build of torch
supplies it here too. Only the standard library is used.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
SOURCE_REQUIREMENTS = HERE / "sources.txt"
OVERLAY_REQUIREMENTS = HERE / "transformers-4.txt"
LINT_REQUIREMENTS = HERE / "lint.txt"


def cache() -> pathlib.Path:
    """The folder that everything generated or downloaded goes to."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("NIBBLE_CACHE") or pathlib.Path(base) / "nibble").absolute()


def key(*files: pathlib.Path) -> str:
    """Differs whenever the installed environment would."""
    digest = hashlib.sha256()
    for requirements in files:
        digest.update(requirements.read_bytes())
    digest.update(f"{sys.version_info[:2]} {platform.machine()} {sys.base_prefix}".encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(path: pathlib.Path):
    """One builder at a time; the kernel lets go of the lock if that builder dies."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(*command: str) -> None:
    """Everything a child prints goes to stderr: stdout is for the interpreter's path."""
    subprocess.run(command, check=True, stdout=sys.stderr)


def create(folder: pathlib.Path) -> tuple[str, ...]:
    """An empty environment; how its pip is called."""
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", str(folder))
    return str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"


def build(folder: pathlib.Path) -> None:
    started = time.monotonic()
    print(f"installing the Python packages that the tests compare with into {folder}", file=sys.stderr)
    pip = create(folder)
    run(*pip, "--requirement", str(REQUIREMENTS))
    run(*pip, "--no-deps", "--no-build-isolation", "--requirement", str(SOURCE_REQUIREMENTS))
    overlay = str(folder / "transformers-4")
    run(*pip, "--no-deps", "--target", overlay, "--requirement", str(OVERLAY_REQUIREMENTS))
    print(f"installed in {time.monotonic() - started:.0f} s", file=sys.stderr)


def build_lint(folder: pathlib.Path) -> None:
    run(*create(folder), "--requirement", str(LINT_REQUIREMENTS))


def environment(name: str, files: tuple[pathlib.Path, ...], build) -> pathlib.Path:
    """Builds it if it is not there yet."""
    if sys.version_info < (3, 11):
        sys.exit("environment.py: Python 3.11 or newer is needed; set PYTHON to one")
    cache().mkdir(parents=True, exist_ok=True)
    folder = cache() / f"{name}-{key(*files)}"
    # The marker is written last, so a folder without it is what an interrupted build left behind.
    complete = folder / "complete"
    if not complete.exists():
        with locked(folder.with_suffix(".lock")):
            if not complete.exists():
                build(folder)
                complete.touch()
    return folder / "bin" / "python"


def interpreter() -> pathlib.Path:
    return environment("interop", (REQUIREMENTS, SOURCE_REQUIREMENTS, OVERLAY_REQUIREMENTS), build)


def lint() -> pathlib.Path:
    return environment("lint", (LINT_REQUIREMENTS,), build_lint)


if __name__ == "__main__":
    print(lint() if sys.argv[1:] == ["lint"] else interpreter())
