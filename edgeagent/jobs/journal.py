# SPDX-License-Identifier: Apache-2.0
"""The job journal: one small file that says what this device was doing when it was reset.

Record: {"jobId", "executionNumber", "operation", "status", ...}; the runner owns its meaning.
File: CRC-32, a newline, JSON. Writes are atomic (temporary file and rename), so a power cut leaves the old record or
the new one; the checksum catches flash that decayed later.

The job document is deliberately not kept: it may be as large as the journal itself, a re-fetched one carries fresh
presigned URLs, and the re-fetch tells whether the service cancelled the job meanwhile.
"""

import binascii
import json
import os

from edgeagent import log
from edgeagent.compat import Any, const, exc_text, make_dirs, read_file, write_atomic
from edgeagent.errors import JobFailed

_JOURNAL_BYTES = const(8192)  # what a handler may keep
_READ_BYTES = const(131072)  # ten details of 1024 characters, each escaped, fit twice


class Journal:
    """At most one record at `path`; the folder is made on the first write."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> "dict[str, Any] | None":
        """The record, or None. A damaged file counts as absent, and is logged: the service still knows the job."""
        raw = read_file(self._path, _READ_BYTES)
        if raw is not None:
            head, _, body = raw.partition(b"\n")
            if head == b"%d" % binascii.crc32(body):
                return json.loads(body)  # type: ignore[no-any-return]
            log.error("jobs", "damaged journal ignored")
        return None

    def write(self, record: "dict[str, Any]") -> None:
        """Replace the record; durable when this returns.

        Raises JobFailed if it cannot be stored, or is over _JOURNAL_BYTES while a handler is at work (an outcome is
        bounded by what the service takes); the old record is then intact.
        """
        body = json.dumps(record).encode()
        if len(body) > _JOURNAL_BYTES and record["status"] == "IN_PROGRESS":
            raise JobFailed("checkpoint is larger than %d bytes" % _JOURNAL_BYTES)
        try:
            make_dirs(self._path[: self._path.rfind("/")])
            write_atomic(self._path, b"%d\n" % binascii.crc32(body) + body)
        except OSError as error:
            raise JobFailed("journal: " + exc_text(error)) from None

    def clear(self) -> None:
        """Forget the record. If that fails it is reported once more after a reset, and refused as already over."""
        try:
            os.remove(self._path)
        except OSError:
            pass
