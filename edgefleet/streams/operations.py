# SPDX-License-Identifier: Apache-2.0
"""The control plane of streams: operations of `iot` (aws-iot-protocol.md section 10.2)."""

from __future__ import annotations

import os
import sqlite3
import time
import unicodedata
from typing import Any

from edgefleet import names, paging
from edgefleet.artifacts.objects import Objects
from edgefleet.errors import ApiError, already_exists, invalid, not_found
from edgefleet.store import Tx
from edgefleet.streams import records
from edgefleet.streams.blocks import MAX_FILE
from edgefleet.streams.records import File

MAX_FILES = 50
MAX_FILE_BYTES = 24 * 1024 * 1024
MAX_DESCRIPTION = 2028
MAX_PAGE = 250


class StreamOperations:
    """objects: where the files of streams are."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def create_stream(self, tx: Tx, *, streamId: str, files: list[dict[str, Any]], description: str | None = None,
                      roleArn: str | None = None) -> dict[str, Any]:  # fmt: skip
        """A new stream has version 1: the embedded C client asks for no other (section 10.3)."""
        names.check("streamId", streamId)
        if records.stream(tx, streamId) is not None:
            raise already_exists(
                f"Stream {streamId} already exists", resourceId=streamId, resourceArn=names.arn(f"stream/{streamId}")
            )
        checked, now = self._files(files), int(time.time())
        tx.execute(
            "INSERT INTO streams (stream_id, version, description, role_arn, created_at, updated_at)"
            " VALUES (?, 1, ?, ?, ?, ?)",
            (streamId, _description(description), roleArn, now, now),
        )
        records.replace_files(tx, streamId, checked)
        return _shown(_existing(tx, streamId))

    def describe_stream(self, tx: Tx, *, streamId: str) -> dict[str, Any]:
        row = _existing(tx, streamId)
        info = _shown(row)
        info["files"] = [
            {"fileId": one.file_id, "s3Location": {"bucket": one.bucket, "key": one.key}}
            for one in records.files(tx, streamId)
        ]
        info["createdAt"], info["lastUpdatedAt"] = row["created_at"], row["updated_at"]
        if row["role_arn"] is not None:
            info["roleArn"] = row["role_arn"]
        return {"streamInfo": info}

    def update_stream(self, tx: Tx, *, streamId: str, description: str | None = None,
                      files: list[dict[str, Any]] | None = None,
                      roleArn: str | None = None) -> dict[str, Any]:  # fmt: skip
        """Members that are not given stay; the version grows by one."""
        _existing(tx, streamId)
        checked = None if files is None else self._files(files)
        tx.execute(
            "UPDATE streams SET version = version + 1, description = coalesce(?, description),"
            " role_arn = coalesce(?, role_arn), updated_at = ? WHERE stream_id = ?",
            (_description(description), roleArn, int(time.time()), streamId),
        )
        if checked is not None:
            records.replace_files(tx, streamId, checked)
        return _shown(_existing(tx, streamId))

    def delete_stream(self, tx: Tx, *, streamId: str) -> dict[str, Any]:
        """The objects stay."""
        _existing(tx, streamId)
        tx.execute("DELETE FROM streams WHERE stream_id = ?", (streamId,))
        return {}

    def list_streams(self, tx: Tx, *, maxResults: int | None = None, nextToken: str | None = None,
                     ascendingOrder: bool = False) -> dict[str, Any]:  # fmt: skip
        """In order of creation, newest first unless `ascendingOrder`."""
        count = paging.limit(maxResults, MAX_PAGE)
        after = paging.decode(nextToken, int)
        if ascendingOrder:
            sql, start = "SELECT * FROM streams WHERE sequence > ? ORDER BY sequence LIMIT ?", 0
        else:
            sql, start = "SELECT * FROM streams WHERE sequence < ? ORDER BY sequence DESC LIMIT ?", 1 << 62
        rows = tx.all(sql, (after[0] if after else start, count + 1))
        page: dict[str, Any] = {"streams": [_shown(row) for row in rows[:count]]}
        if len(rows) > count:
            page["nextToken"] = paging.encode(rows[count - 1]["sequence"])
        return page

    def _files(self, files: list[dict[str, Any]]) -> list[File]:
        """The checked files, each of which must exist. Raises InvalidRequestException or ResourceNotFoundException."""
        if not 1 <= len(files) <= MAX_FILES:
            raise invalid(f"files must have 1-{MAX_FILES} entries, not {len(files)}")
        checked: dict[int, File] = {}
        for one in files:
            file_id, place = one.get("fileId"), one.get("s3Location") or {}
            if not isinstance(file_id, int) or not 0 <= file_id <= MAX_FILE or file_id in checked:
                raise invalid(f"fileId must be given once, between 0 and {MAX_FILE}, not {file_id}")
            bucket, key = place.get("bucket"), place.get("key")
            if not bucket or not key:
                raise invalid(f"s3Location of file {file_id} needs bucket and key")
            try:
                with self._objects.open(bucket, key) as source:
                    status = os.fstat(source.fileno())
            except ApiError as error:
                raise not_found(f"File {file_id} (s3://{bucket}/{key}): {error.message}") from None
            if status.st_size > MAX_FILE_BYTES:
                raise invalid(f"File {file_id} has {status.st_size} bytes; the limit is {MAX_FILE_BYTES}")
            checked[file_id] = File(file_id, bucket, key, status.st_size, status.st_mtime_ns)
        return list(checked.values())


def _existing(tx: Tx, stream_id: str) -> sqlite3.Row:
    row = records.stream(tx, stream_id)
    if row is None:
        raise not_found(f"Stream {stream_id} does not exist")
    return row


def _description(text: str | None) -> str | None:
    if text is not None and len(text) > MAX_DESCRIPTION:
        raise invalid(f"description must have at most {MAX_DESCRIPTION} characters, not {len(text)}")
    if text is not None and any(unicodedata.category(character)[0] == "C" for character in text):
        raise invalid("description must not contain control characters")
    return text


def _shown(row: sqlite3.Row) -> dict[str, Any]:
    shown = {
        "streamId": row["stream_id"],
        "streamArn": names.arn(f"stream/{row['stream_id']}"),
        "streamVersion": row["version"],
    }
    if row["description"] is not None:
        shown["description"] = row["description"]
    return shown
