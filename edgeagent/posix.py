# SPDX-License-Identifier: Apache-2.0
"""The CPython half of compat.py and clock.py. Boards never load it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import traceback
from collections.abc import Awaitable
from typing import Any


def const(value: Any) -> Any:
    """Compile-time constant on MicroPython, identity here."""
    return value


async def wait_for(awaitable: Awaitable[Any], seconds: float) -> Any:
    """As asyncio.wait_for of Python 3.12; that of 3.11 forgets a cancellation that comes together with the result."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def shut(writer: Any) -> None:
    """Close a stream: in order if the peer takes what is left within 3 s, else at once. Raises what the link raises."""
    try:
        writer.close()
        await wait_for(writer.wait_closed(), 3)
    finally:
        writer.transport.abort()


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
