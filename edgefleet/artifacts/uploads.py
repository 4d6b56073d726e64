# SPDX-License-Identifier: Apache-2.0
"""Files that devices upload in parts: the built-in Basic Ingest rule `edgeagent_upload`.

A device publishes raw bytes to `$aws/rules/edgeagent_upload/{thing}/{bundle}/{part}/{parts}`, parts counted from 0
(`edgeagent.topics.upload`; on AWS this is an IoT rule with an S3 action). Once all parts are there they become the
object `uploads/{thing}/{bundle}` of the bucket `edgeagent-uploads`, in the transaction that acknowledges the last one.
Whose thing name stands in the topic is the policy's business: the site's policy allows only the device's own.
A diagnostics bundle of more than 1 MiB is several such uploads: `{bundle}`, `{bundle}.1`, `{bundle}.2` and so on
(edgeagent/upload.py); they stay objects of their own, as they do in S3, and `edgefleet diagnostics show` joins them.
Basic Ingest has no replies, so what is wrong is logged and dropped, never refused (aws-iot-protocol.md section 2.5).
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable

from edgeagent import topics
from edgefleet.artifacts.objects import Objects
from edgefleet.messages import Request
from edgefleet.store import Tx

log = logging.getLogger(__name__)

BUCKET = "edgeagent-uploads"
PART_BYTES = 128 * 1024  # an MQTT payload of AWS IoT (section 2.4)
PARTS = 256  # messages of 4 KB, as boards send them, that make 1 MiB
BUNDLE_BYTES = 4 * 1024 * 1024
OPEN_BUNDLES = 4  # incomplete ones a thing may have; the oldest gives way
INCOMPLETE_S = 24 * 3600  # parts of a bundle that never got complete are kept so long
REMEMBERED_S = 7 * 24 * 3600  # so long a repeated part of a complete bundle is recognised

_RULE = f"$aws/rules/{topics.UPLOAD_RULE}/"
_NAMES = re.compile(r"([a-zA-Z0-9:_-]{1,128})/([a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,95})/(\d{1,4})/(\d{1,4})")


class Uploads:
    """The rule. `clock`: epoch seconds."""

    def __init__(self, objects: Objects, clock: Callable[[], float] = time.time) -> None:
        self._objects = objects
        self._clock = clock

    def handle(self, tx: Tx, request: Request) -> bool:
        """Take one part. True if the topic is of this rule, whether or not the part was acceptable."""
        if not request.topic.startswith(_RULE):
            return False
        found = _NAMES.fullmatch(request.topic[len(_RULE) :])
        if found is None:
            log.warning("upload of %s dropped: %s is not thing/bundle/part/parts", request.client_id, request.topic)
            return True
        thing, bundle, part, parts = found[1], found[2], int(found[3]), int(found[4])
        problem = self._take(tx, thing, bundle, part, parts, request.payload)
        if problem:
            log.warning("upload %s/%s of %s: part %d dropped: %s", thing, bundle, request.client_id, part, problem)
        return True

    def _take(self, tx: Tx, thing: str, bundle: str, part: int, parts: int, data: bytes) -> str | None:
        """Store a part and, if it was the last missing one, the bundle. Returns why it was dropped, or None."""
        if not 1 <= parts <= PARTS:
            return f"a bundle has 1 to {PARTS} parts, not {parts}"
        if part >= parts:
            return f"there is no such part among {parts}"
        if len(data) > PART_BYTES:
            return f"a part has at most {PART_BYTES} bytes, not {len(data)}"
        now = self._clock()
        digest = hashlib.sha256(data).digest()
        self._expire(tx, now)
        row = tx.one("SELECT parts, complete FROM upload_bundle WHERE thing = ? AND bundle = ?", (thing, bundle))
        if row is not None and row["complete"]:
            known = tx.value(
                "SELECT digest FROM upload_part WHERE thing = ? AND bundle = ? AND part = ?", (thing, bundle, part)
            )
            if row["parts"] == parts and known == digest:
                return None  # delivered again: the PUBACK was lost
            tx.execute("DELETE FROM upload_bundle WHERE thing = ? AND bundle = ?", (thing, bundle))
            row = None  # another upload under the same name; it replaces the object once it is complete
        if row is None:
            self._open(tx, thing, bundle, parts, now)
        elif row["parts"] != parts:
            return f"the bundle was begun with {row['parts']} parts, not {parts}"
        others = tx.value(
            "SELECT coalesce(sum(size), 0) FROM upload_part WHERE thing = ? AND bundle = ? AND part != ?",
            (thing, bundle, part),
        )
        if others + len(data) > BUNDLE_BYTES:
            return f"a bundle has at most {BUNDLE_BYTES} bytes"
        tx.execute(
            "INSERT OR REPLACE INTO upload_part (thing, bundle, part, digest, size, data) VALUES (?, ?, ?, ?, ?, ?)",
            (thing, bundle, part, digest, len(data), data),
        )
        tx.execute("UPDATE upload_bundle SET updated = ? WHERE thing = ? AND bundle = ?", (now, thing, bundle))
        have = tx.value("SELECT count(*) FROM upload_part WHERE thing = ? AND bundle = ?", (thing, bundle))
        if have == parts:
            self._complete(tx, thing, bundle)
        return None

    def _open(self, tx: Tx, thing: str, bundle: str, parts: int, now: float) -> None:
        """Begin a bundle; a thing that leaves too many unfinished loses the oldest, so a board cannot fill the disk."""
        tx.execute(
            "DELETE FROM upload_bundle WHERE thing = :thing AND bundle IN (SELECT bundle FROM upload_bundle"
            " WHERE thing = :thing AND complete = 0 ORDER BY updated DESC, bundle LIMIT -1 OFFSET :kept)",
            {"thing": thing, "kept": OPEN_BUNDLES - 1},
        )
        tx.execute(
            "INSERT INTO upload_bundle (thing, bundle, parts, updated) VALUES (?, ?, ?, ?)", (thing, bundle, parts, now)
        )

    def _complete(self, tx: Tx, thing: str, bundle: str) -> None:
        """The object is durable before the transaction is: a crash between leaves the last part unacknowledged, and
        its second delivery writes the same object again.
        """
        rows = tx.all("SELECT data FROM upload_part WHERE thing = ? AND bundle = ? ORDER BY part", (thing, bundle))
        self._objects.put(BUCKET, f"uploads/{thing}/{bundle}", b"".join(row["data"] for row in rows))
        tx.execute("UPDATE upload_bundle SET complete = 1 WHERE thing = ? AND bundle = ?", (thing, bundle))
        tx.execute("UPDATE upload_part SET data = NULL WHERE thing = ? AND bundle = ?", (thing, bundle))

    @staticmethod
    def _expire(tx: Tx, now: float) -> None:
        tx.execute(
            "DELETE FROM upload_bundle WHERE updated < ? OR (updated < ? AND complete = 0)",
            (now - REMEMBERED_S, now - INCOMPLETE_S),
        )
