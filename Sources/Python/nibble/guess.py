"""What a file or directory that cannot be opened seems to be, and what to do instead."""

import os
import re

# As much of a file as tells.
ENOUGH = 64

# A repository of a hub: organization and name.
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

CONVERT = "`nibble convert {} -o DIRECTORY` makes of it a checkpoint that can be opened"


def of_bytes(data: bytes) -> str | None:
    """What begins so, if it is known and is not safetensors."""
    if data.startswith(b"GGUF"):
        return f"a GGUF file, not safetensors; {CONVERT.format('FILE')}"
    if data.startswith((b"PK\x03\x04", b"\x80\x02")):
        return "a file of PyTorch's, not safetensors; what wrote it can save safetensors"
    if data.startswith(b"version https://git-lfs"):
        return "the pointer of Git LFS to a file that was not downloaded: `git lfs pull`"
    if data.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a page of HTML, not safetensors: what was downloaded is likely the page about the file"
    return None


def of_file(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return of_bytes(file.read(ENOUGH))
    except OSError:
        return None


def of_name(path: str) -> str:
    """For a path that is not there."""
    if REPOSITORY.fullmatch(path):
        return f"; if that is a model of the Hugging Face hub: `hf download {path} --local-dir DIRECTORY`"
    return ""


def of_directory(path: str) -> str:
    """For a directory that holds no weights in safetensors."""
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return ""
    if "adapter_config.json" in names:
        return "; an adapter, which is loaded onto its base: PeftModel.from_pretrained(nibble.load(BASE), ADAPTER)"
    snapshots = os.path.join(path, "snapshots")
    if "snapshots" in names and os.path.isdir(snapshots):
        found = [os.path.join(snapshots, name) for name in sorted(os.listdir(snapshots))]
        return f"; an entry of the Hugging Face cache: open {' or '.join(found) or 'one of its snapshots'}"
    for name in names:
        if name.endswith(".gguf"):
            return f"; {CONVERT.format(os.path.join(path, name))}"
    if "pytorch_model.bin" in names or "pytorch_model.bin.index.json" in names:
        return "; its weights are in PyTorch's own files: what wrote them can save safetensors"
    return ""
