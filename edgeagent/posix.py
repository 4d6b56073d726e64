# SPDX-License-Identifier: Apache-2.0
"""What files and tracebacks need on CPython only; see compat.py. Boards never load it."""

from __future__ import annotations

import contextlib
import os
import traceback


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
