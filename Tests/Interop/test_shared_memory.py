"""Tests leave nothing in /dev/shm, and take nothing from who uses it."""

import mmap
import os

import pytest

import shared_memory


@pytest.mark.skipif(not shared_memory.FOLDER.is_dir(), reason="no /dev/shm")
def test_only_what_nobody_uses_is_removed():
    names = [f"deepspeed_allreduce_buffer_{os.getuid()}_test-{os.getpid()}_{rank}" for rank in range(2)]
    used, left = (shared_memory.FOLDER / name for name in names)
    for path in (used, left):
        path.write_bytes(bytes(4096))
    try:
        with open(used, "r+b") as file, mmap.mmap(file.fileno(), 4096):
            shared_memory.sweep()
            assert used.exists() and not left.exists()
        shared_memory.sweep()
        assert not used.exists()
    finally:
        for path in (used, left):
            path.unlink(missing_ok=True)
