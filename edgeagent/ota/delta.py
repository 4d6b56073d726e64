# SPDX-License-Identifier: Apache-2.0
"""Updates as a patch to the payload that runs. Whatever is wrong with one, the whole payload is fetched instead.

Patch: MAGIC, window bits, 16 bytes of the ids of the old and of the new artifact, then raw deflate of records: three
whole numbers (7 bits a byte, lowest first): how far the place in the old payload moves (twice that, or twice what it
moves back, less one), how many bytes follow that are added to those there, and how many after them that are taken as
they are. What is added is one little-endian number for each PIECE of the new payload, or the part of it that the record
makes; what is carried out of that is dropped. Why so: docs/adr/0008-delta-format.md.

A patch is not signed: what it makes is verified block by block against the signed hash list before it is written, as
what is downloaded is.
"""

import asyncio
import binascii

from edgeagent import compat
from edgeagent.compat import Any, const
from edgeagent.errors import JobRejected

MAGIC = b"EAD1"
PIECE = const(512)  # bytes that are added as one number
_HEADER = const(37)
_BLOCK = const(4096)  # LIMITS.BLOCK; a number is smaller here than a name
_SLICE = const(1024)  # bytes between two yields; a record counts as 64


def check(document: "dict[str, Any]") -> None:
    """The member `deltas` of a job document. Raises JobRejected."""
    member = "url" if "urls" in document or "url" in document else "file"
    number = 0
    try:
        for entry in document["deltas"]:
            size = entry["bytes"]
            place = entry[member]
            if (
                (place[:8] != "https://" if member == "url" else type(place) is not int or not 2 < place < 256)
                or type(size) is not int
                or not _HEADER < size < document["artifact"]["payload"]
                or len(binascii.unhexlify(entry["from"])) != 32
            ):
                raise ValueError
            entry["file"] = place
            number += 1
    except (LookupError, TypeError, ValueError):
        raise JobRejected("deltas[%d]: must be from, bytes and %s" % (number, member)) from None


async def run(
    job: "Any", path: str, target: "Any", name: str, size: int, missing: int, writer: "Any", fetch: "Any", tick: "Any"
) -> str:
    """Write what is missing of a payload with a patch. Returns why that did not work; "" if it did, or costs more.

    path: where the patch is kept. target: of kinds.target; may have `old()`: the payload that runs (size, hex id
    `artifact`, readinto(at, view), close()), or None. name: hex id of the new artifact, whose payload has `size` bytes,
    of which some are missing. fetch: as jobs.ota.fetch, whose file may be an URL; tick: for it.
    Raises MemoryError once a job: after the restart there may be room.
    """
    count = 0
    patch: "Any" = None
    old: "Any" = None
    reason = "none from what runs"

    def block(number: int, data: "Any") -> bool:
        nonlocal count
        # One after the other: how long the patch is tells after a reset what is there.
        if number == count:
            patch.seek(number * _BLOCK)
            patch.write(data)
            compat.sync_file(patch)
            count += 1
            return False
        return True

    try:
        old = target.old() if hasattr(target, "old") else None
        if old:
            reason = "none from " + old.artifact
        for entry in job.document["deltas"]:
            if old and entry["from"] == old.artifact:
                total = entry["bytes"]
                ids = binascii.unhexlify(old.artifact[:32] + name[:32])
                patch = open(path, "r+b" if compat.exists(path) else "w+b")  # noqa: ASYNC230  no other kind on boards
                if patch.read(_HEADER)[5:] != ids or patch.seek(0, 2) > total:
                    patch.close()
                    patch = open(path, "w+b")  # noqa: ASYNC230
                    compat.sync_dir(path[: path.rfind("/")])
                there = patch.seek(0, 2)
                if total - there < missing:
                    from edgeagent.space import free

                    room = free(path)
                    # The payload's room may be another: that of firmware is.
                    if total - there + (missing if target.free() == room else 0) > room:
                        raise ValueError("no space")
                    count = (there + (_BLOCK - 1 if there == total else 0)) // _BLOCK
                    have = bytearray(((1 << count) - 1).to_bytes(total // (8 * _BLOCK) + 1, "little"))
                    await fetch(job, job.document.get("stream"), entry["file"], total, block, have, tick)
                    for _ in apply(patch, ids, old, size, writer, bytearray(_BLOCK)):
                        await asyncio.sleep(0)
                return ""
    except MemoryError:
        if not job.data.get("restarts"):
            raise
        reason = "out of memory"
    except Exception as error:
        reason = compat.exc_text(error)
    finally:
        for file in (old, patch):
            if file:
                file.close()
    return reason


def inflate(file: "Any", bits: int) -> "Any":
    """A reader (readinto) of what raw deflate has made `file` of from here, with a window of 2^bits bytes."""
    if not compat.MICROPYTHON:
        from edgeagent.posix import Inflate

        return Inflate(file, bits)
    import deflate  # type: ignore[import-not-found, unused-ignore]

    return deflate.DeflateIO(file, deflate.RAW, bits)


def apply(file: "Any", ids: bytes, old: "Any", size: int, writer: "Any", held: "Any") -> "Any":
    """Give the blocks of the new payload that `writer` has not yet to its `block`. Yields after _SLICE bytes of work.

    file: the patch, which must be of `ids`. old: as for `run`. size: bytes of the new payload. writer: has
    block(number, data) and have. held: buffer for a block.
    Raises ValueError, OSError or EOFError (which one is the runtime's) for a bad patch, and what the two others raise.
    """
    file.seek(0)
    head = file.read(_HEADER)
    if head[:4] != MAGIC or head[5:] != ids or not 8 < head[4] < 13:
        raise ValueError("not for this")
    source = inflate(file, head[4])
    view = memoryview(held)
    spare = memoryview(bytearray(PIECE))
    have = writer.have

    def read(part: "Any") -> None:
        while part:
            count = source.readinto(part)
            if not count:
                raise ValueError("ends early")
            part = part[count:]

    def number() -> int:
        value = shift = 0
        while shift < 28:
            read(spare[:1])
            value |= (spare[0] & 127) << shift
            shift += 7
            if spare[0] < 128:
                return value
        raise ValueError("bad number")

    start = at = work = 0
    while at < size:
        move = number()
        start += move >> 1 ^ -(move & 1)
        add = number()
        left = add + number()
        # Each record makes something, so an endless stream of them ends.
        if not 0 < left <= size - at or start < 0 or add > old.size - start:
            raise ValueError("out of bounds")
        work += 64
        while left:
            place = at & 4095
            count = min(add or left, PIECE - (at & PIECE - 1))
            part = view[place : place + count]
            wanted = not have[at >> 15] >> (at >> 12 & 7) & 1
            if add:
                diff = spare[:count]
                read(diff)
                if wanted:
                    old.readinto(start, part)
                    more = int.from_bytes(diff, "little")
                    if more:
                        more += int.from_bytes(part, "little")
                        part[:] = (more & (1 << 8 * count) - 1).to_bytes(count, "little")
                add -= count
                start += count
            else:
                read(part)
            at += count
            left -= count
            work += count
            if wanted and (not at & 4095 or at == size):
                place = at - 1 >> 12
                writer.block(place, view[: at - place * _BLOCK])
                have[place >> 3] |= 1 << (place & 7)
            if work >= _SLICE:
                work = 0
                yield
