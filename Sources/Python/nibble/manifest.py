"""`nibble-manifest.json`: what every file and tensor of a checkpoint was when it was written."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeGuard

import xxhash

from .container import Entry, read_json
from .errors import CheckpointError, DigestError, printable

NAME = "nibble-manifest.json"
CHECKSUMS = "checksums.xxh128"

HEXADECIMAL = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Digests:
    """The XXH3-64 of one tensor and, where it is long, of each `piece` bytes of it (the last may be shorter)."""

    whole: str
    piece: int
    pieces: str

    def of_piece(self, index: int) -> str:
        return self.pieces[16 * index : 16 * index + 16] if self.pieces else self.whole


def read(path: str) -> Manifest | None:
    """The manifest in a directory, or None where there is none."""
    try:
        with open(os.path.join(path, NAME), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{os.path.join(path, NAME)}: {error.strerror}") from None
    return Manifest(path, data)


def is_digest(value: object, digits: int) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) == digits and HEXADECIMAL.fullmatch(value) is not None


def file_digest(path: str) -> str | None:
    """The XXH128 of a file, or None if it cannot be read."""
    digest = xxhash.xxh3_128()
    try:
        # Without O_NONBLOCK a named pipe would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
    except OSError:
        return None
    return digest.hexdigest()


def is_inside(name: str) -> bool:
    """Whether a name leads to nowhere but the directory that it is said to be in."""
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and "\0" not in name and "\\" not in name


class Manifest:
    def __init__(self, directory: str, data: bytes) -> None:
        self.path = os.path.join(directory, NAME)
        document = read_json(data, self.path)
        if not isinstance(document, dict) or document.get("format") != "nibble-manifest":
            raise CheckpointError(f"{self.path}: not a manifest")
        if document.get("version") != 1:
            raise CheckpointError(f"{self.path}: version {printable(str(document.get('version')))}, 1 is known")
        self.files = self._object(document, "files")
        self.tensors = self._object(document, "tensors")
        self._check_itself(directory, data)

    def _object(self, document: dict, key: str) -> dict[str, dict]:
        value = document.get(key)
        if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
            raise CheckpointError(f"{self.path}: '{key}' is not an object of objects")
        return value

    def _check_itself(self, directory: str, data: bytes) -> None:
        """The manifest's own digest stands in the list for `xxhsum`, if that is still there."""
        try:
            with open(os.path.join(directory, CHECKSUMS), encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            return
        for line in lines:
            digest, _, name = line.partition("  ")
            if name == NAME and digest != (found := xxhash.xxh3_128_hexdigest(data)):
                raise DigestError(self.path, None, 0, len(data), digest, found)

    def check_size(self, path: str, size: int) -> None:
        """That a file has the size that it was written with."""
        recorded = self.files.get(os.path.basename(path))
        if recorded is None:
            raise CheckpointError(f"{path}: not in {NAME}")
        if recorded.get("size") != size:
            raise CheckpointError(f"{path}: {size} bytes, {printable(str(recorded.get('size')))} when it was written")

    def altered(self, directory: str, names: Iterable[str]) -> dict[str, str | None]:
        """Which of these files, so far as the manifest lists them, are no longer what was written, and their digests
        now (None for one that is gone)."""
        result = {}
        for name in names:
            if name in self.files:
                found = file_digest(os.path.join(directory, name))
                if found != self.files[name].get("xxh128"):
                    result[name] = found
        return result

    def check_side_files(self, directory: str, weights: Collection[str]) -> None:
        """That all files but those of weights, whose tensors are checked one by one, are those that were written, and
        no other lies beside them."""
        names = [name for name in self.files if name not in weights]
        for name in names:
            if not is_inside(name):
                raise CheckpointError(f"{self.path}: '{printable(name)}' is not the name of a file beside it")
        altered = self.altered(directory, names)
        for name, found in altered.items():
            if found is None:
                raise CheckpointError(f"{os.path.join(directory, name)}: cannot be read, and {NAME} lists it")
        if altered:
            name, *others = altered
            path = os.path.join(directory, name)
            expected = printable(str(self.files[name].get("xxh128")))
            raise DigestError(path, None, 0, os.path.getsize(path), expected, str(altered[name]), tuple(others))
        for entry in os.scandir(directory):
            # Version control and download tools keep their own state in hidden ones, trainers theirs in folders.
            known = entry.name in self.files or entry.name in (NAME, CHECKSUMS)
            if not known and not entry.name.startswith(".") and not entry.is_dir():
                raise CheckpointError(f"{os.path.join(directory, printable(entry.name))}: not in {NAME}")

    def digests(self, path: str, entry: Entry) -> Digests:
        """Those of a tensor, after a check that the manifest means the bytes that the file's header means."""

        def refuse(what: str) -> CheckpointError:
            return CheckpointError(f"{path}: tensor '{printable(entry.name)}': {what}")

        recorded = self.tensors.get(entry.name)
        if recorded is None:
            raise refuse(f"not in {NAME}")
        place = (recorded.get("file"), recorded.get("offset"), recorded.get("bytes"))
        if place != (os.path.basename(path), entry.offset, entry.size):
            raise refuse(f"{NAME} has it elsewhere: file, offset and bytes are {printable(str(place))}")
        whole = recorded.get("xxh3")
        if not is_digest(whole, 16):
            raise refuse(f"{NAME} has no digest of it")
        pieces = recorded.get("pieces")
        if pieces is None:
            return Digests(whole, max(entry.size, 1), "")
        size, text = (pieces.get("bytes"), pieces.get("xxh3")) if isinstance(pieces, dict) else (None, None)
        if type(size) is not int or size <= 0 or not is_digest(text, 16 * -(-entry.size // size)):
            raise refuse(f"{NAME}: 'pieces' is malformed")
        return Digests(whole, size, text)
