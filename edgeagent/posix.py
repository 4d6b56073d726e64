# SPDX-License-Identifier: Apache-2.0
"""The CPython half of compat.py and clock.py. Boards never load it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import traceback
import zlib
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, BinaryIO


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


def link_files(folder: str, entries: Iterable[Sequence[str]]) -> None:
    """Make `folder` of links to files in the folder `store` beside it, which become read-only; durable at the end.

    entries: (path, bytes, name in the store). The links are hard, or symbolic where the file system has no others.
    Raises OSError.
    """
    store = os.path.join(os.path.dirname(folder), "store")
    made = {os.path.dirname(folder), store, folder}
    os.mkdir(folder)
    for path, _, name in entries:
        source, target = os.path.join(store, name), os.path.join(folder, path)
        parent = os.path.dirname(target)
        while parent not in made:
            made.add(parent)
            parent = os.path.dirname(parent)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.chmod(source, int(name.partition("-")[2].rstrip("x") or "444", 8) & ~0o222)
        try:
            os.link(source, target)
        except OSError:
            os.symlink(os.path.relpath(source, os.path.dirname(target)), target)
    for one in sorted(made):
        sync_dir(one)


class Inflate:
    """What raw deflate has made a file of, as MicroPython's deflate.DeflateIO gives it."""

    def __init__(self, file: BinaryIO, bits: int) -> None:
        self._file = file
        self._stream = zlib.decompressobj(-bits)

    def readinto(self, part: memoryview) -> int:
        """Bytes put into `part`, which has room for some: 0 at the end. Raises EOFError without one, ValueError."""
        try:
            while not self._stream.eof:
                held = self._stream.unconsumed_tail or self._file.read(512)
                data = self._stream.decompress(held, len(part))
                if data:
                    part[: len(data)] = data
                    return len(data)
                if not held:
                    raise EOFError("ends early")
        except zlib.error as error:
            raise ValueError(str(error)) from None
        return 0
