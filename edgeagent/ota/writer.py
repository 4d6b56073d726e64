# SPDX-License-Identifier: Apache-2.0
"""Verified blocks into the store of the slots: each is checked against the signed hash list before it is written.

A file lies in slots/store under the first 16 bytes of its SHA-256, "-MODE" if the manifest gives one. The name promises
nothing: what is complete is found out by hashing, and then never opened for writing again. So what the running version
has, or an earlier try has left, is neither fetched nor written; only in a block that it shares with other files does it
come again.

Blocks come in any order and may span files. What was written is synced block by block, so that a reset costs the block
under way and no other; `resume` finds out from the store itself what is there, by the same hashes: it needs no journal.
(A sync makes littlefs begin a new flash block: one more erase for each 4 KiB, for nothing that is downloaded twice.)
"""

import asyncio
import binascii
import hashlib
import io
import os
import struct

from edgeagent import compat
from edgeagent.compat import const
from edgeagent.errors import UpdateError
from edgeagent.ota import Files

_BLOCK = const(4096)  # LIMITS.BLOCK; a number here is smaller than a name
# In the table, beside the mode: it has none; complete; under its second name.
_NO_MODE = const(0x8000)
_COMPLETE = const(0x4000)
_SECOND = const(0x2000)


class Writer:
    """Fills `slot` with the files of a manifest. have: bytearray, a bit for each block that is on flash (after
    `resume`); as Fetcher.fetch takes it. count: number of files.
    """

    def __init__(self, slot: str, manifest: "compat.Any", hashes: "compat.Any") -> None:
        """slot: its path. hashes: open file (or bytes) of 32 bytes for each block, then for each file, not yet trusted.
        On boards it is too large for the heap, and of a file the part that is needed is read.

        Raises UpdateError "bundle" if they are not the signed ones.
        """
        if not hasattr(hashes, "seek"):
            hashes = io.BytesIO(hashes)
        whole = hashlib.sha256()
        left = 32 * (manifest.blocks + len(manifest.files))
        while left >= 0:  # one byte more would be read too
            part = hashes.read(512)
            left -= len(part)
            if not part:
                break
            whole.update(part)
        if left or whole.digest() != manifest.blocks_sha256:
            raise UpdateError("bundle", "the hash list is of another artifact")
        self._slot = slot
        self._manifest = manifest
        self._hashes = hashes
        self._file: "compat.Any" = None
        self._number = -1  # of the open file
        self.have = bytearray((manifest.blocks + 7) // 8)
        self.count = len(manifest.files)
        self._table = bytearray()  # size and flags: 6 bytes a file
        for _, size, _, mode in manifest.files:
            self._table.extend(struct.pack("<IH", size, _NO_MODE if mode is None else mode))

    def _matches(self, digest: "compat.Any", number: int) -> bool:
        self._hashes.seek(32 * number)
        return bool(digest.digest() == self._hashes.read(32))

    def _entry(self, number: int) -> "tuple[int, ...]":
        """(size, flags) of a file."""
        return struct.unpack_from("<IH", self._table, 6 * number)

    def _flag(self, number: int, flag: int) -> None:
        struct.pack_into("<H", self._table, 6 * number + 4, self._entry(number)[1] | flag)

    def _name(self, number: int) -> str:
        """Of a file, in the store."""
        self._hashes.seek(32 * (self._manifest.blocks + number))
        name = binascii.hexlify(self._hashes.read(16)).decode()
        flags = self._entry(number)[1]
        if not flags & _NO_MODE:
            name += "-%o" % (flags & 0o777)
        return name + "x" if flags & _SECOND else name

    def path(self, number: int) -> str:
        """Where the content of the manifest's `number`-th file is."""
        return self._slot[:-1] + "store/" + self._name(number)

    def label(self, number: int) -> str:
        """Path of the `number`-th file in the manifest, for people."""
        from edgeagent.ota.store import lines

        return str([entry[0] for entry in lines(self._slot + ".idx")][number])

    async def resume(self) -> int:
        """Find out which blocks are on flash: `have`. Returns the first that is not. Yields per block.

        Writes the index, deletes what neither it nor the other slot's names, and empties `manifest.files`: a board
        has better use for the room.
        """
        index = self._begin()
        await self._read_back(False)
        again = False
        for number in range(self.count):
            if index and not self._entry(number)[1] & _COMPLETE and index.used(self._slot, self._name(number)):
                # The running version's own has decayed. It stays as it is: a cut would leave it half written.
                self._flag(number, _SECOND)
                again = True
        if again:
            index.write(self._slot, self._entries)
            self.have = bytearray(len(self.have))
            await self._read_back(False)
        for number in range(self.count):
            size, flags = self._entry(number)
            path = self.path(number)
            if flags & _COMPLETE:
                continue
            if not size:
                self._open(number)
            elif compat.exists(path):
                if os.stat(path)[6] > size:
                    os.unlink(path)
                elif compat.posix:
                    os.chmod(path, 0o600)
        self.close()
        self._manifest.files = Files()
        number = 0
        while number < self._manifest.blocks and self.have[number >> 3] >> (number & 7) & 1:
            number += 1
        return number

    def _begin(self) -> "compat.Any":
        from edgeagent.ota import index

        index.write(self._slot, self._entries)
        index.clean(self._slot)
        return index

    def _entries(self) -> "compat.Any":
        for number, entry in enumerate(self._manifest.files):
            yield entry[0].encode(), entry[1], self._name(number).encode()

    async def _read_back(self, strict: bool = True) -> None:
        """Hash what is on flash, block by block, into `have`, and each file; if `strict` the whole too.

        Raises UpdateError "file-hash" naming the first file that is not what was signed if `strict`, OSError.
        """
        view = memoryview(bytearray(512))
        whole = hashlib.sha256()
        block = hashlib.sha256()
        manifest = self._manifest
        rest = manifest.size
        room = min(_BLOCK, rest)  # until the end of the block
        number = 0
        good = True  # nothing of the block is missing
        for index in range(self.count):
            left = self._entry(index)[0]
            path = self.path(index)
            one = hashlib.sha256()
            there = compat.exists(path) and os.stat(path)[6] <= left
            f = there and open(path, "rb")  # noqa: ASYNC230  no other kind of file on boards
            try:
                while left:
                    count = min(left, room, 512)
                    part = view[: f.readinto(view[:count]) if f else 0]
                    if part:
                        count = len(part)
                        block.update(part)
                        one.update(part)
                        if strict:
                            whole.update(part)
                    else:
                        good = False
                    left -= count
                    rest -= count
                    room -= count
                    if not room:
                        good = good and self._matches(block, number)
                        if good:
                            self.have[number >> 3] |= 1 << (number & 7)
                        elif strict:
                            raise UpdateError("file-hash", self.label(index))
                        number += 1
                        block = hashlib.sha256()
                        room = min(_BLOCK, rest)
                        good = True
                        await asyncio.sleep(0)
                if there and self._matches(one, manifest.blocks + index):
                    self._flag(index, _COMPLETE)
                elif strict:
                    raise UpdateError("file-hash", self.label(index))
            finally:
                if f:
                    f.close()
        if strict and whole.digest() != manifest.sha256:
            raise UpdateError("file-hash", "payload")

    def block(self, number: int, data: "bytes | memoryview") -> None:
        """Verify block `number` and write it. Raises UpdateError "block-hash", OSError; it may come again then."""
        if not self._matches(hashlib.sha256(data), number):
            raise UpdateError("block-hash", "block %d" % number)
        view = memoryview(data)
        at = number * _BLOCK
        try:
            for index in range(self.count):
                size, flags = self._entry(index)
                if at < size and view:
                    part = view[: size - at]
                    if not flags & _COMPLETE:
                        self._open(index)
                        self._file.seek(at)
                        self._file.write(part)
                    at += len(part)
                    view = view[len(part) :]
                at -= size
            if self._file:
                compat.sync_file(self._file)
        except Exception:
            self.close()
            raise

    def _open(self, number: int) -> None:
        if number != self._number:
            self.close()
            path = self.path(number)
            parent = path[: path.rfind("/")]
            compat.make_dirs(parent)
            self._file = open(path, "r+b" if compat.exists(path) else "wb")
            compat.sync_dir(parent)  # a block that is synced must not lose its name
            self._number = number

    def close(self) -> None:
        """Close the open file, keeping what was written. Raises OSError."""
        f = self._file
        self._file = None
        self._number = -1
        if f:
            try:
                compat.sync_file(f)
            finally:
                f.close()

    async def finish(self) -> None:
        """Read everything back from flash: every file and the whole payload must have the signed hashes.

        Raises UpdateError "file-hash" naming the file, OSError. Yields per block.
        """
        self.close()
        await self._read_back()
        index = self._slot + ".idx"
        if compat.posix and compat.exists(index):
            from edgeagent.ota.store import lines

            compat.remove_tree(self._slot)
            compat.posix.link_files(self._slot, lines(index))
