"""Texts into sequences of tokens."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import printable
from .errors import MISSING, REJECTED, Refusal, reason

# Bytes of a text that are turned into tokens at once, to an end of a line, and characters without one that are cut.
PIECE, LONGEST = 1 << 18, 1 << 20


@dataclass
class Texts:
    """Sequences of tokens, longest first, and where they came from."""

    sequences: list[list[int]] = field(default_factory=list)
    # [{"file", "sha256"}], in the order in which they were named.
    files: list[dict[str, str]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sequences))

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.sequences).encode()).hexdigest()


def read(paths: list[str], tokenizer: Any, tokens: int, length: int, pack: bool) -> Texts:
    """At most `tokens` tokens, in sequences of at most `length`: of all documents one after another, or each by itself.

    Raises Refusal for a file that is missing, empty or not what it should be.
    """
    texts, left = Texts(), tokens
    stream: list[int] = []
    for path in paths:
        digest, found = hashlib.sha256(), 0
        for document in documents(path, tokenizer, digest, lambda: left > 0):
            for ids in document:
                found += len(ids)
                ids = ids[:left]
                left -= len(ids)
                stream += ids
            if not pack:
                texts.sequences += cut(stream, length)
                stream = []
        if not found and left:
            raise Refusal(REJECTED, f"{path}: no text in it")
        texts.files.append({"file": os.path.basename(path), "sha256": digest.hexdigest()})
    texts.sequences += cut(stream, length)
    texts.sequences.sort(key=len, reverse=True)
    return texts


def cut(ids: list[int], length: int) -> list[list[int]]:
    return [ids[start : start + length] for start in range(0, len(ids), length)]


def documents(path: str, tokenizer: Any, digest: Any, wanted: Any) -> Iterator[Iterator[list[int]]]:
    """The tokens of each document of a file, in pieces. The file is read to its end even when no more are wanted, for
    its digest, and so that what is no text is told whatever the number of tokens."""
    if path.endswith(".jsonl"):
        lines = pieces(path, digest, None)
        yield from conversations(path, lines, tokenizer, wanted)
    else:
        lines = pieces(path, digest, LONGEST)
        yield plain(lines, tokenizer, wanted)
    for _ in lines:
        pass


def plain(lines: Iterator[str], tokenizer: Any, wanted: Any) -> Iterator[list[int]]:
    first = True
    for text in lines:
        if wanted() and not (first and not text.strip()):
            yield tokenizer(text, add_special_tokens=first)["input_ids"]
            first = False


def conversations(path: str, lines: Iterator[str], tokenizer: Any, wanted: Any) -> Iterator[Iterator[list[int]]]:
    number = 0
    for piece in lines:
        for line in piece.removesuffix("\n").split("\n"):
            number += 1
            if wanted() and line.strip():
                yield iter([tokens_of(f"{path}: line {number}", line, tokenizer)])


def tokens_of(where: str, line: str, tokenizer: Any) -> list[int]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refusal(REJECTED, f"{where}: not JSON: {error}") from None
    text, messages = (record.get(key) if isinstance(record, dict) else None for key in ("text", "messages"))
    if isinstance(text, str) and messages is None:
        return tokenizer(text)["input_ids"] if text.strip() else []
    if not isinstance(messages, list) or text is not None:
        raise Refusal(REJECTED, f'{where}: {{"text": TEXT}} or {{"messages": [...]}} expected')
    if not getattr(tokenizer, "chat_template", None):
        raise Refusal(MISSING, f"{where}: has messages, and the model's tokenizer has no chat template for them")
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:  # whatever a template does not like
        what = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise Refusal(REJECTED, f"{where}: not what the chat template takes: {what}") from None
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def pieces(path: str, digest: Any, longest: int | None) -> Iterator[str]:
    """The text of a file, in pieces of whole lines; a line beyond `longest` characters is cut."""
    decoder, position = codecs.getincrementaldecoder("utf-8")("strict"), 0
    rest: list[str] = []
    try:
        with open(path, "rb") as file:
            while data := file.read(PIECE):
                digest.update(data)
                pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(data)
                except UnicodeDecodeError as error:
                    raise not_text(path, position - pending + error.start) from None
                if not position:
                    text = text.removeprefix("\ufeff")
                position += len(data)
                end = text.rfind("\n") + 1
                if not end and longest is not None and sum(map(len, rest)) > longest:
                    end = text.rfind(" ") + 1 or len(text)
                if end:
                    yield "".join([*rest, text[:end]])
                    rest = []
                rest.append(text[end:])
    except OSError as error:
        raise Refusal(MISSING, f"{path}: {reason(error)}") from None
    if left := decoder.getstate()[0]:
        raise not_text(path, position - len(left))
    if text := "".join(rest):
        yield text


def not_text(path: str, offset: int) -> Refusal:
    return Refusal(REJECTED, f"{path}: not text in UTF-8: byte {offset}")
