"""`nibble-manifest.json`: what every file and tensor of a checkpoint was when it was written."""

import os
import re
from dataclasses import dataclass

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


def read(path: str) -> "Manifest | None":
    """The manifest in a directory, or None where there is none."""
    try:
        with open(os.path.join(path, NAME), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{os.path.join(path, NAME)}: {error.strerror}") from None
    return Manifest(path, data)


def is_digest(value, digits: int) -> bool:
    return isinstance(value, str) and len(value) == digits and HEXADECIMAL.fullmatch(value) is not None


class Manifest:
    def __init__(self, directory: str, data: bytes):
        self.path = os.path.join(directory, NAME)
        document = read_json(data, self.path)
        if not isinstance(document, dict) or document.get("format") != "nibble-manifest":
            raise CheckpointError(f"{self.path}: not a manifest")
        if document.get("version") != 1:
            raise CheckpointError(f"{self.path}: version {printable(str(document.get('version')))}, 1 is known")
        self.files = self._object(document, "files")
        self.tensors = self._object(document, "tensors")
        self._check_itself(directory, data)

    def _object(self, document: dict, key: str) -> dict:
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

    def altered(self, directory: str, names: tuple[str, ...]) -> list[str]:
        """Which of these small files, so far as the manifest lists them, are no longer what was written."""
        result = []
        for name in names:
            recorded = self.files.get(name)
            if recorded is None:
                continue
            try:
                with open(os.path.join(directory, name), "rb") as file:
                    found = xxhash.xxh3_128_hexdigest(file.read())
            except OSError:
                found = None
            if found != recorded.get("xxh128"):
                result.append(name)
        return result

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
        if not is_digest(whole := recorded.get("xxh3"), 16):
            raise refuse(f"{NAME} has no digest of it")
        pieces = recorded.get("pieces")
        if pieces is None:
            return Digests(whole, max(entry.size, 1), "")
        size, text = (pieces.get("bytes"), pieces.get("xxh3")) if isinstance(pieces, dict) else (None, None)
        if type(size) is not int or size <= 0 or not is_digest(text, 16 * -(-entry.size // size)):
            raise refuse(f"{NAME}: 'pieces' is malformed")
        return Digests(whole, size, text)
