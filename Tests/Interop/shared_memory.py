"""Buffers that DeepSpeed makes for processes on one CPU, and never removes."""

import os
import pathlib

FOLDER = pathlib.Path("/dev/shm")


def sweep() -> None:
    """Removes those of this user that no process has: others of his may be training."""
    for path in FOLDER.glob(f"deepspeed_allreduce_buffer_{os.getuid()}_*"):
        if not is_in_use(path):
            path.unlink(missing_ok=True)


def is_in_use(path: pathlib.Path) -> bool:
    for maps in pathlib.Path("/proc").glob("[0-9]*/maps"):
        try:
            if f" {path}\n" in maps.read_text(errors="replace"):
                return True
        except OSError:
            # It has ended, or is not this user's.
            continue
    return False
