"""Memory that a finished layer has left behind."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def give_back() -> None:
    """The C library keeps what is freed for what comes next, and more of it with every layer."""
    if (trim := trimming()) is not None:
        trim(0)


@functools.cache
def trimming() -> Callable[[int], int] | None:
    """glibc's; others give back by themselves, or have no such thing."""
    try:
        found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):
        return None
    return found
