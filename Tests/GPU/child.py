"""What every child process does: reads its task, computes, writes what it found.

A child is `python CHILD.py TASK.json RESULT.json`. It has a process to itself, so that its memory and its caches are
its own, and whatever libraries print goes to a log that is shown only when the child fails.
"""

import ctypes
import json
import os
import pathlib
import signal
import sys
import time

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
ROOT = pathlib.Path(__file__).resolve().parents[2]
for folder in ("Tests/Interop", "Sources/Python"):
    sys.path.append(str(ROOT / folder))


def quiet() -> None:
    """No network is looked for, and no bars are drawn into the log."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def end_with_parent() -> None:
    """A parent that is killed leaves no child behind on the card, where it would spoil what is measured next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def main(work) -> None:
    """`work` maps the task to what is found, both plain JSON."""
    end_with_parent()
    task_path, result_path = map(pathlib.Path, sys.argv[1:])
    quiet()
    result = work(json.loads(task_path.read_text()))
    result_path.write_text(json.dumps(result, indent=2))


class Clock:
    """Seconds until the device has finished, not until it was asked."""

    def __init__(self, place):
        self.place = place

    def __enter__(self):
        self.place.synchronize()
        self.started = time.perf_counter()
        return self

    def __exit__(self, *error):
        if error[0] is None:
            self.place.synchronize()
        self.seconds = time.perf_counter() - self.started
