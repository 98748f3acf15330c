"""What this package raises for a checkpoint that is not as it should be, and for a name that it does not have."""

import contextlib
import difflib
import functools
from collections.abc import Iterable, Iterator


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: missing, malformed, changed while it was read, or not for this purpose."""


class DigestError(CheckpointError):
    """Bytes that differ from those that were written.

    `file` and `tensor` name the place (`tensor` is None where a whole file is meant); `offset` and `size` are
    the damaged range, in bytes from the file's beginning, as closely as the manifest knows it. `others` are the names
    of files beside it that differ too.
    """

    def __init__(
        self, file: str, tensor: str | None, offset: int, size: int, expected: str, found: str,
        others: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.file, self.tensor, self.offset, self.size = file, tensor, offset, size
        self.expected, self.found, self.others = expected, found, others
        subject, place = file, "edited or damaged"
        if tensor is not None:
            subject = f"{file}: tensor '{printable(tensor)}'"
            place = f"damaged: bytes {offset} to {offset + size - 1} of the file"
        more = f", and so are {', '.join(map(printable, others))}" if others else ""
        super().__init__(f"{subject}: digest {found}, {expected} when it was written; {place}{more}")

    def __reduce__(self) -> tuple:
        # Errors travel between ranks by pickle, which would call the initializer with the message alone.
        values = self.file, self.tensor, self.offset, self.size, self.expected, self.found, self.others
        return DigestError, values


class NoSuchTensorError(KeyError):
    """A name that no tensor of the checkpoint has. `nearest` is the most similar one that some tensor has, or None."""

    def __init__(self, path: str, name: object, names: Iterable[str]) -> None:
        super().__init__(name)
        self.path, self.name, self._names = path, name, names

    @functools.cached_property
    def nearest(self) -> str | None:
        # Not before someone asks: `name in checkpoint` and `checkpoint.get(name)` raise this error too.
        return nearest(self.name, self._names) if isinstance(self.name, str) else None

    def __str__(self) -> str:
        # A KeyError would show the name alone.
        found = f"; the nearest is '{printable(self.nearest)}'" if self.nearest is not None else ""
        return f"{self.path}: no tensor '{printable(str(self.name))}'{found}"

    def __reduce__(self) -> tuple:
        return NoSuchTensorError, (self.path, self.name, [] if self.nearest is None else [self.nearest])


@contextlib.contextmanager
def needs(what: str, packages: str, otherwise: str) -> Iterator[None]:
    """Says what to do where an import finds one of these packages missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in packages.split():
            raise
        message = f"{what} needs {error.name}, which is not installed: pip install {packages}; {otherwise}"
        raise ModuleNotFoundError(message, name=error.name) from error


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar name: one that only lacks the front or the end of it, or else by edits."""
    names = list(names)
    inside = [other for other in names if other.startswith(f"{name}.") or other.endswith(f".{name}")]
    found = [min(inside, key=len)] if inside else difflib.get_close_matches(name, names, n=1)
    return found[0] if found else None


def printable(name: str, limit: int = 200) -> str:
    """A name from a file, fit for a terminal: no control character, and not endless."""
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)
    return text if len(text) <= limit else text[:limit] + "…"
