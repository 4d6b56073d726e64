# SPDX-License-Identifier: Apache-2.0
"""Streams in the store, and their files in the object store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from edgefleet.artifacts.objects import Objects
from edgefleet.errors import ApiError
from edgefleet.store import Tx
from edgefleet.streams.blocks import StreamError


@dataclass(frozen=True, slots=True)
class File:
    """One numbered file; `size` in bytes."""

    file_id: int
    bucket: str
    key: str
    size: int
    modified_ns: int


def stream(tx: Tx, stream_id: str) -> sqlite3.Row | None:
    return tx.one("SELECT * FROM streams WHERE stream_id = ?", (stream_id,))


def files(tx: Tx, stream_id: str) -> list[File]:
    """In order of their ids."""
    rows = tx.all("SELECT file_id, bucket, key, size, modified_ns FROM stream_files WHERE stream_id = ?"
                  " ORDER BY file_id", (stream_id,))  # fmt: skip
    return [File(*row) for row in rows]


def replace_files(tx: Tx, stream_id: str, new: Iterable[File]) -> None:
    tx.execute("DELETE FROM stream_files WHERE stream_id = ?", (stream_id,))
    tx.executemany(
        "INSERT INTO stream_files VALUES (?, ?, ?, ?, ?, ?)",
        [(stream_id, one.file_id, one.bucket, one.key, one.size, one.modified_ns) for one in new],
    )


def read(objects: Objects, file: File, block: int, numbers: Iterable[int]) -> list[bytes]:
    """Some blocks of a file, reading only those. Raises StreamError if the object is gone or is another one now."""
    try:
        source = objects.open(file.bucket, file.key)
    except ApiError:
        raise StreamError("ResourceNotFound", f"file {file.file_id} is no longer in the object store") from None
    with source:
        status = os.fstat(source.fileno())
        if (status.st_size, status.st_mtime_ns) != (file.size, file.modified_ns):
            raise StreamError("ETagMismatch", f"file {file.file_id} has changed since it was added to the stream")
        found = []
        for number in numbers:
            source.seek(number * block)
            found.append(source.read(min(block, file.size - number * block)))
    return found
