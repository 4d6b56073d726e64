# SPDX-License-Identifier: Apache-2.0
"""What a writer does once, before blocks come and after them: write the index of its slot and clean the store, of which
store.py says what they are, and find out by hashing what is on flash. Loaded for that, and then dropped again.
"""

import asyncio
import hashlib
import os
import struct

from edgeagent import compat
from edgeagent.compat import Any, const
from edgeagent.errors import UpdateError
from edgeagent.ota import Files, trial
from edgeagent.ota.store import find
from edgeagent.ota.writer import COMPLETE, NO_MODE, SECOND

_BLOCK = const(4096)
_ENOENT = const(2)


def table(manifest: "Any", hashes: "Any") -> bytearray:
    """Size and flags of the manifest's files, 6 bytes each. hashes: file of the list, which must be the signed one.

    Raises UpdateError "bundle".
    """
    whole = hashlib.sha256()
    left = 32 * (manifest.blocks + len(manifest.files))
    while left >= 0:  # one byte more would be read too
        part = hashes.read(512)
        left -= len(part)
        if not part:
            break
        whole.update(part)
    if left or whole.digest() != manifest.blocks_sha256:
        raise UpdateError("bundle", "hash list of another artifact")
    made = bytearray()
    for _, size, _, mode in manifest.files:
        made += struct.pack("<IH", size, NO_MODE if mode is None else mode)
    return made


async def resume(writer: "Any") -> None:
    """Find out which blocks are on flash: its `have`. Yields per block.

    Writes the index, deletes what neither it nor the other slot's names, and empties `manifest.files`: a board
    has better use for the room. Raises OSError.
    """
    if writer.PLAIN:
        writer.tidy(writer.slot + "/")
    else:
        write(writer)
        clean(writer.slot)
    await _read_back(writer, False)
    again = False
    for number in range(writer.count):
        if not writer.PLAIN and not writer.entry(number)[1] & COMPLETE and used(writer.slot, writer.name(number)):
            # The running version's own has decayed. It stays as it is: a cut would leave it half written.
            _flag(writer, number, SECOND)
            again = True
    if again:
        write(writer)
        writer.have = bytearray(len(writer.have))
        await _read_back(writer, False)
    for number in range(writer.count):
        size, flags = writer.entry(number)
        if flags & COMPLETE:
            continue
        path = writer.path(number)
        if not size:
            writer.open(number)
        elif compat.exists(path):
            if os.stat(path)[6] > size:
                os.unlink(path)
            elif compat.posix:
                os.chmod(path, 0o600)
    writer.close()
    writer.manifest.files = Files()


async def finish(writer: "Any", whole: "Any" = None) -> None:
    """Read everything back from flash: every file and the whole payload must have the signed hashes.

    whole: hash object that takes in the payload, too.
    Raises UpdateError "file-hash" naming the file, OSError. Yields per block.
    """
    writer.close()
    await _read_back(writer, True, whole)
    if compat.posix and not writer.PLAIN:
        compat.remove_tree(writer.slot)
        compat.posix.link_files(writer.slot, lines(writer.slot + ".idx"))


def write(writer: "Any") -> None:
    """The index of its slot. Raises OSError.

    In place: an index counts for nothing before its slot is complete.
    """
    slot = writer.slot
    with open(slot + ".idx", "wb") as f:
        f.write(b"-------\n\n")
        seal = hashlib.sha256(b"\n")
        for number, entry in enumerate(writer.manifest.files):
            line = ("%s %d %s\n" % (entry[0], entry[1], writer.name(number))).encode()
            seal.update(line)
            f.write(line)
        f.seek(0)
        f.write(seal.digest()[:8])
        compat.sync_file(f)
    compat.sync_dir(slot[:-2])


def lines(index: str) -> "Any":
    """[path, bytes as text, name in the store] of each file."""
    with open(index, "rb") as f:
        f.seek(9)
        for line in f:
            yield line.decode().split()


def clean(slot: str) -> None:
    """Delete from the store what no slot names. Raises OSError."""
    store = slot[:-1] + "store"
    for entry in os.listdir(store) if compat.posix else os.ilistdir(store):  # type: ignore[attr-defined]
        name = entry if compat.posix else entry[0]
        if not find(slot + ".idx", " %s\n" % name) and not used(slot, name):
            os.unlink(store + "/" + name)


def used(slot: str, name: str) -> bool:
    """True if the index of the other slot names it; also if that cannot be read whole: then nothing is deleted."""
    part = (" %s\n" % name).encode()
    seen = False
    seal = hashlib.sha256()
    held = b""
    try:
        with open(slot[:-1] + trial.other(slot[-1:]) + ".idx", "rb") as f:
            first = data = f.read(8)
            while data:
                data = f.read(256)
                seal.update(data)
                held = held[-256:] + data
                seen = seen or part in held
    except OSError as error:
        return error.errno != _ENOENT  # type: ignore[no-any-return]
    return seen or seal.digest()[:8] != first


def _flag(writer: "Any", number: int, flag: int) -> None:
    struct.pack_into("<H", writer.table, 6 * number + 4, writer.entry(number)[1] | flag)


async def _read_back(writer: "Any", strict: bool, also: "Any" = None) -> None:
    """Hash what is on flash, block by block, into `have`, and each file; if `strict` the whole too.

    Raises UpdateError "file-hash" naming the first file that is not what was signed if `strict`, OSError.
    """
    view = memoryview(bytearray(512))
    whole = hashlib.sha256()
    manifest = writer.manifest
    rest = manifest.size
    room = number = 0  # until the end of the block; of the block
    for index in range(writer.count):
        left = writer.entry(index)[0]
        path = writer.path(index)
        one = hashlib.sha256()
        # No other kind of file on boards.
        f = compat.exists(path) and os.stat(path)[6] <= left and open(path, "rb")  # noqa: ASYNC230
        bad = not f
        try:
            while left:
                if not room:
                    room = min(_BLOCK, rest)
                    block = hashlib.sha256()  # of what is there: without all of it the block has another one
                count = min(left, room, 512)
                part = view[: f.readinto(view[:count]) if f else 0]
                if part:
                    count = len(part)
                    block.update(part)
                    one.update(part)
                    if strict:
                        whole.update(part)
                    if also:
                        also.update(part)
                left -= count
                rest -= count
                room -= count
                if not room:
                    if writer.matches(block, number):
                        writer.have[number >> 3] |= 1 << (number & 7)
                    elif strict:
                        bad = True
                        break
                    number += 1
                    await asyncio.sleep(0)
            if not bad and writer.matches(one, manifest.blocks + index):
                _flag(writer, index, COMPLETE)
            elif strict:
                raise UpdateError("file-hash", writer.label(index))
        finally:
            if f:
                f.close()
    if strict and whole.digest() != manifest.sha256:
        raise UpdateError("file-hash", "payload")
