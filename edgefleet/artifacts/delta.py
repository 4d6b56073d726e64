# SPDX-License-Identifier: Apache-2.0
"""Patches from the artifact that a device runs to a new one, and which of them are worth publishing.

The format is edgeagent/ota/delta.py's, docs/adr/0008-delta-format.md says why. Old and new payload alone decide a
patch's bytes, so it is reproducible (with one version of zlib).
"""

from __future__ import annotations

import bz2
import io
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeagent.limits import LIMITS
from edgeagent.ota.delta import MAGIC, PIECE, apply
from edgefleet.artifacts.build import Artifact
from edgefleet.errors import FleetError

WINDOW_BITS = 10  # 1 KiB of a board's heap; 12 would save one part in a hundred of a patch
WORTH = 0.6  # of the payload; a larger patch saves too little for the time and the flash that it takes
MOST = 16  # in a job document: boards take 8 KiB of JSON
MOST_URLS = 2  # presigned URLs of AWS have some 1.5 KB each
REPORTED = 16  # hex digits of the id, in the attribute `artifact`
_TRIPLE = struct.Struct("<3Q")
_SIGN = 1 << 63


@dataclass
class Delta:
    """old: the artifact it is for; devices: how many are known to run it."""

    old: Artifact
    patch: bytes
    devices: int | None = None

    @classmethod
    def make(cls, old: Artifact, new: Artifact, devices: int | None = None) -> Delta:
        return cls(old, make_delta(old, new), devices)


def make_delta(old: Artifact, new: Artifact) -> bytes:
    """The patch that makes the payload of `new` of that of `old`; applied once here, with the device's own code.

    Raises FleetError if the package bsdiff4 is not there.
    """
    try:
        import bsdiff4  # type: ignore[import-untyped]
    except ImportError:
        raise FleetError("deltas need the package bsdiff4: pip install 'edgeagent[fleet]'") from None
    raw = bsdiff4.diff(old.payload, new.payload)  # a header of four numbers, then bz2 of the triples
    control = bz2.decompress(raw[32 : 32 + _little(raw[8:16])])
    records = b"".join(_records(old.payload, new.payload, control))
    patch = MAGIC + bytes([WINDOW_BITS]) + _ids(old, new)
    patch += min((_deflate(records, memory) for memory in range(5, 10)), key=len)
    if apply_delta(patch, old, new) != new.payload:
        raise FleetError("the delta does not make the new payload")
    return patch


def _ids(old: Artifact, new: Artifact) -> bytes:
    return bytes.fromhex(old.digest[:32] + new.digest[:32])


def _deflate(data: bytes, memory: int) -> bytes:
    """memory: level of zlib's, which decides how often the code is adapted to the data."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -WINDOW_BITS, memory)
    return packer.compress(data) + packer.flush()


def _records(old: bytes, new: bytes, control: bytes) -> Iterator[bytes]:
    """The records of a patch, in pieces. control: triples of bsdiff: bytes to add, to copy, to move in the old data."""
    at = start = moved = 0  # in the new data; in the old; what of that no record has said yet
    for add, copy, move in _TRIPLE.iter_unpack(control):
        if add + copy:
            yield b"".join(map(_number, (moved << 1 ^ moved >> 63, add, copy)))
            moved = 0
        end = at + add
        while at < end:
            count = min(end - at, PIECE - at % PIECE)
            difference = _little(new[at : at + count]) - _little(old[start : start + count])
            yield (difference % (1 << 8 * count)).to_bytes(count, "little")
            at += count
            start += count
        yield new[at : at + copy]
        at += copy
        step = _SIGN - move if move & _SIGN else move  # sign and magnitude
        start += step
        moved += step


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _number(value: int) -> bytes:
    raw = bytearray()
    while value > 127:
        raw.append(value & 127 | 128)
        value >>= 7
    return bytes([*raw, value])


def worth(old: Artifact, new: Artifact, patch: bytes) -> bool:
    """Whether the patch saves enough, and is for the same thing on the same runtime."""
    return old.info.type == new.info.type and len(patch) < WORTH * len(new.payload)


def chosen(deltas: Iterable[Delta], new: Artifact, most: int) -> list[Delta]:
    """Those that are published: worth it, at most `most`, first those that most devices need."""
    good = [one for one in deltas if worth(one.old, new, one.patch)]
    return sorted(good, key=lambda one: (-(one.devices or 0), one.old.digest))[:most]


def library(folder: Path) -> dict[str, Artifact]:
    """All artifacts below `folder`, by the id that devices report. Raises InputError for a broken one."""
    found = {}
    for path in sorted(folder.rglob("envelope")):
        if (path.parent / "payload").is_file():
            artifact = Artifact.read(path.parent)
            found[artifact.digest[:REPORTED]] = artifact
    return found


def running(iot: Any, query: str) -> dict[str, int]:
    """How many of the devices that a fleet index query finds run which artifact; "" for those that do not say.

    iot: boto3 client. Pages through the devices: AWS aggregates custom fields only if they were declared.
    """
    found: Counter[str] = Counter()
    page: dict[str, Any] = {}
    while True:
        token = {"nextToken": page["nextToken"]} if page.get("nextToken") else {}
        page = iot.search_index(queryString=query, maxResults=100, **token)
        for thing in page["things"]:
            reported = json.loads(thing.get("shadow") or "{}").get("reported") or {}
            found[str(reported.get("artifact") or "")] += 1
        if not page.get("nextToken"):
            return dict(found)


class Payload:
    """A payload in memory, as the device's decoder reads the old one and writes the new one."""

    def __init__(self, data: bytes | bytearray, artifact: str = "") -> None:
        self.data, self.artifact, self.size = data, artifact, len(data)
        self.have = bytearray(len(data) // LIMITS.BLOCK // 8 + 1)

    def readinto(self, at: int, view: memoryview) -> None:
        view[:] = self.data[at : at + len(view)]

    def block(self, number: int, data: memoryview) -> None:
        assert isinstance(self.data, bytearray)
        self.data[number * LIMITS.BLOCK : number * LIMITS.BLOCK + len(data)] = data


def apply_delta(patch: bytes, old: Artifact, new: Artifact) -> bytes:
    """What the device's decoder makes of a patch. Raises ValueError or EOFError if it is none for these two."""
    made = Payload(bytearray(len(new.payload)))
    base = Payload(old.payload, old.digest)
    for _ in apply(io.BytesIO(patch), _ids(old, new), base, made.size, made, bytearray(LIMITS.BLOCK)):
        pass
    return bytes(made.data)
