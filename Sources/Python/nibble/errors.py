"""What this package raises for a checkpoint that is not as it should be."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: missing, malformed, changed while it was read, or not for this purpose."""


class DigestError(CheckpointError):
    """Bytes that differ from those that were written.

    `file` and `tensor` name the place (`tensor` is None where a whole file is meant); `offset` and `size` are
    the damaged range, in bytes from the file's beginning, as closely as the manifest knows it.
    """

    def __init__(self, file: str, tensor: str | None, offset: int, size: int, expected: str, found: str):
        self.file, self.tensor, self.offset, self.size = file, tensor, offset, size
        self.expected, self.found = expected, found
        subject = f"{file}: tensor '{printable(tensor)}'" if tensor is not None else file
        super().__init__(
            f"{subject}: digest {found}, {expected} when it was written; "
            f"damaged: bytes {offset} to {offset + size - 1} of the file"
        )

    def __reduce__(self):
        # Errors travel between ranks by pickle, which would call the initializer with the message alone.
        return DigestError, (self.file, self.tensor, self.offset, self.size, self.expected, self.found)


def printable(name: str, limit: int = 200) -> str:
    """A name from a file, fit for a terminal: no control character, and not endless."""
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)
    return text if len(text) <= limit else text[:limit] + "…"
