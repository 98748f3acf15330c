"""The folder `FILE.partial`: what an interrupted run has finished, until FILE is there.

    state.json              the fingerprint of the run, and how far it came; replaced as a whole after every layer
    hidden-00007            what goes into layer 7
    part-00006.safetensors  the statistics of layer 6
    part-00006.json         which weights they are of
    lock                    held while a run works here
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from typing import Any

from ..container import MappedFile
from .errors import EXISTS, FAILED, LOCKED, Refusal, reason
from .hidden import Stored
from .statistics import Entry, tensors_of, write


# How the names of everything begin that a run leaves in the folder.
OWN = ("lock", "state.json", "hidden-", "part-", "statistics.", "imatrix.")


class Partial:
    """Raises Refusal when the folder cannot be made, or another run works in it."""

    def __init__(self, output: str, fingerprint: str) -> None:
        self.output, self.path, self._fingerprint = output, f"{output}.partial", fingerprint
        # Layers that are finished, and the form in which layers return hidden states.
        self.done, self.form = 0, None
        self.hidden: Stored | None = None
        # Whether what was there is another run's.
        self.was_other = False
        try:
            os.makedirs(self.path, exist_ok=True)
            foreign = sorted(name for name in os.listdir(self.path) if not name.startswith(OWN))
            if foreign:
                raise Refusal(EXISTS, f"{self.path}: is no interrupted run's, it has '{foreign[0]}' in it")
            self._lock = open(self.file("lock"), "w")
        except OSError as error:
            raise Refusal(EXISTS, f"{self.path}: {reason(error)}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refusal(LOCKED, f"{self.path}: another run is at work in it") from None
        self._take_up()

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _take_up(self) -> None:
        try:
            with open(self.file("state.json"), "rb") as file:
                state = json.load(file)
            if state["fingerprint"] == self._fingerprint:
                self.done, self.form = state["done"], state["form"]
                self.hidden = Stored(**state["hidden"]) if state["hidden"] is not None else None
            else:
                self.was_other = True
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            self.was_other = True
        if not self.done:
            self.restart()
            return
        # What the layer that was not finished had begun.
        known = {"lock", "state.json", self.hidden.name if self.hidden else ""}
        known |= {f"part-{index:05}.{kind}" for index in range(self.done) for kind in ("safetensors", "json")}
        self._clear(known)

    def restart(self) -> None:
        self.done, self.form, self.hidden = 0, None, None
        self._clear({"lock"})

    def _clear(self, but: set[str]) -> None:
        for name in os.listdir(self.path):
            if name not in but and not os.path.isdir(self.file(name)):
                os.unlink(self.file(name))

    def finish_layer(
        self, entries: list[Entry], about: dict[str, Any], hidden: Stored | None, form: int | None
    ) -> None:
        name = f"part-{self.done:05}"
        write(self.file(f"{name}.safetensors"), {}, tensors_of(entries))
        replace(self.file(f"{name}.json"), json.dumps(about))
        self.done, self.form, self.hidden = self.done + 1, form, hidden
        state = {
            "fingerprint": self._fingerprint, "done": self.done, "form": form,
            "hidden": hidden.as_json() if hidden is not None else None,
        }  # fmt: skip
        replace(self.file("state.json"), json.dumps(state))

    def parts(self) -> list[tuple[MappedFile, dict[str, Any]]]:
        found = []
        for index in range(self.done):
            with open(self.file(f"part-{index:05}.json"), "rb") as file:
                found.append((MappedFile(self.file(f"part-{index:05}.safetensors")), json.load(file)))
        return found

    def close(self) -> None:
        self._lock.close()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def replace(path: str, text: str) -> None:
    """Writes a file as a whole, or leaves the one that was there."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)


def move(path: str, output: str) -> None:
    """A finished file to where it belongs, so that it is there also after a loss of power."""
    try:
        os.replace(path, output)
        folder = os.open(os.path.dirname(output) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Refusal(FAILED, f"{output}: {reason(error)}") from None
