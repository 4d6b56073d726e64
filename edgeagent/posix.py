# SPDX-License-Identifier: Apache-2.0
"""The CPython half of compat.py and clock.py. Boards never load it."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from typing import Any


def const(value: Any) -> Any:
    """Compile-time constant on MicroPython, identity here."""
    return value


def ticks_ms() -> int:
    """A monotonic reading."""
    return time.monotonic_ns() // 1000000


def ticks_diff(end: int, start: int) -> int:
    """Milliseconds between two readings."""
    return end - start


def traceback_text(error: BaseException) -> str:
    """The whole traceback."""
    return "".join(traceback.format_exception(error))


def create_private(path: str) -> None:
    """Make a new empty file that only the owner may read."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def sync_dir(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
