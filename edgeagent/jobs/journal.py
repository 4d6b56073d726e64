# SPDX-License-Identifier: Apache-2.0
"""The job journal: one small file that says what this device was doing when it was reset.

Record: {"jobId", "executionNumber", "bootId", "operation", "phase", "data", ...}; the runner owns its meaning.
File: 8 hex digits of CRC-32, a newline, JSON. Writes are atomic (temporary file and rename), so a power cut leaves the
old record or the new one; the checksum catches flash that decayed later.

The job document is deliberately not kept: it may be as large as the journal itself, a re-fetched one carries fresh
presigned URLs, and the re-fetch tells whether the service cancelled the job meanwhile.
"""

import binascii
import json
import os

from edgeagent import compat, log
from edgeagent.compat import Any
from edgeagent.errors import JobFailed
from edgeagent.limits import LIMITS


class Journal:
    """At most one record at `path`; the folder is made on the first write."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> "dict[str, Any] | None":
        """The record, or None. A damaged file counts as absent, and is logged: the service still knows the job."""
        raw = compat.read_file(self._path, LIMITS.JOURNAL_BYTES)
        record = _decode(raw or b"")
        if record is None and compat.exists(self._path):
            log.error("jobs", "the journal is damaged and is ignored")
        return record

    def write(self, record: "dict[str, Any]") -> None:
        """Replace the record; durable when this returns.

        Raises JobFailed if it would exceed LIMITS.JOURNAL_BYTES or cannot be stored; the old record is then intact.
        """
        body = json.dumps(record).encode()
        if len(body) + 9 > LIMITS.JOURNAL_BYTES:
            raise JobFailed("checkpoint is larger than %d bytes" % (LIMITS.JOURNAL_BYTES - 9))
        try:
            compat.make_dirs(self._path[: self._path.rfind("/")])
            compat.write_atomic(self._path, _seal(body) + body)
        except OSError as error:
            raise JobFailed("journal cannot be written: " + compat.exc_text(error)) from None

    def clear(self) -> None:
        """Forget the record. Failing to is only logged: the service then says that the job is over."""
        try:
            if compat.exists(self._path):
                os.remove(self._path)
        except OSError as error:
            log.error("jobs", "journal cannot be removed: %s", compat.exc_text(error))


def _decode(raw: bytes) -> "dict[str, Any] | None":
    if raw[:9] != _seal(raw[9:]):
        return None
    try:
        record = json.loads(raw[9:].decode())
    except (ValueError, UnicodeError):
        return None
    return record if isinstance(record, dict) else None


def _seal(body: bytes) -> bytes:
    return b"%08x\n" % (binascii.crc32(body) & 0xFFFFFFFF)
