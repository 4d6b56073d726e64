# SPDX-License-Identifier: Apache-2.0
"""Verified blocks into the files of a slot: each block is checked against the signed hash list before it is written.

Blocks come in any order and may span files. What was written is synced block by block, so that a reset costs the block
under way and no other; `resume` finds out from the slot itself what is there, by the same hashes, and needs no journal.
(A sync makes littlefs begin a new flash block: one more erase for each 4 KiB, for nothing that is downloaded twice.)
"""

import asyncio
import hashlib
import io
import os

from edgeagent import compat
from edgeagent.compat import const
from edgeagent.errors import UpdateError

_BLOCK = const(4096)  # LIMITS.BLOCK; a number here is smaller than a name


class Writer:
    """Fills `folder` with the files of a manifest. have: bytearray, a bit for each block that is on flash (after
    `resume`); as Fetcher.fetch takes it.
    """

    def __init__(self, folder: str, manifest: "compat.Any", hashes: "compat.Any") -> None:
        """hashes: open file (or bytes) of 32 bytes for each block, then for each file, not yet trusted. On boards it is
        too large for the heap, and of a file the part that is needed is read.

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
        self._folder = folder + "/"
        self._manifest = manifest
        self._hashes = hashes
        self._file: "compat.Any" = None
        self._name = ""  # of the open file
        self.have = bytearray((manifest.blocks + 7) // 8)

    def _matches(self, digest: "compat.Any", number: int) -> bool:
        self._hashes.seek(32 * number)
        return bool(digest.digest() == self._hashes.read(32))

    async def resume(self) -> int:
        """Find out which blocks are on flash: `have`. Returns the first that is not. Yields per block.

        What does not belong to the artifact is deleted: an application that ran from here may have left files, and a
        stale module would shadow a new one.
        """
        self._tidy(self._folder)
        for name, size, _, _ in self._manifest.files:
            path = self._folder + name
            if compat.exists(path) and os.stat(path)[6] > size:
                os.unlink(path)
            if not size:
                self._open(name)
        self.close()
        await self._read_back(False)
        number = 0
        while number < self._manifest.blocks and self.have[number >> 3] >> (number & 7) & 1:
            number += 1
        return number

    def _tidy(self, folder: str) -> None:
        for name in os.listdir(folder):
            path = folder + name
            keep = False
            for entry in self._manifest.files:
                keep = keep or (self._folder + entry[0] + "/").startswith(path + "/")
            if not keep:
                compat.remove_tree(path)
            elif compat.is_dir(path):
                self._tidy(path + "/")

    async def _read_back(self, strict: bool = True) -> None:
        """Hash what is on flash, block by block, into `have`; if `strict` each file and the whole too.

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
        for index, (name, left, _, mode) in enumerate(manifest.files):
            path = self._folder + name
            one = hashlib.sha256()
            there = compat.exists(path)
            f = there and open(path, "rb")  # noqa: ASYNC230  no other kind of file on boards
            try:
                while left:
                    count = min(left, room, 512)
                    part = view[: f.readinto(view[:count]) if f else 0]
                    if part:
                        count = len(part)
                        block.update(part)
                        if strict:
                            one.update(part)
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
                            raise UpdateError("file-hash", name)
                        number += 1
                        block = hashlib.sha256()
                        room = min(_BLOCK, rest)
                        good = True
                        await asyncio.sleep(0)
                if strict:
                    if not there or not self._matches(one, manifest.blocks + index):
                        raise UpdateError("file-hash", name)
                    if mode is not None and not compat.MICROPYTHON:
                        os.chmod(path, mode)
                    compat.sync_dir(path[: path.rfind("/")])
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
            for name, size, _, _ in self._manifest.files:
                if at < size and view:
                    part = view[: size - at]
                    self._open(name)
                    self._file.seek(at)
                    self._file.write(part)
                    at += len(part)
                    view = view[len(part) :]
                at -= size
            compat.sync_file(self._file)
        except Exception:
            self.close()
            raise

    def _open(self, name: str) -> None:
        if name != self._name:
            self.close()
            path = self._folder + name
            compat.make_dirs(path[: path.rfind("/")])
            self._file = open(path, "r+b" if compat.exists(path) else "wb")
            compat.sync_dir(path[: path.rfind("/")])  # a block that is synced must not lose its name
            self._name = name

    def close(self) -> None:
        """Close the open file, keeping what was written. Raises OSError."""
        f = self._file
        self._file = None
        self._name = ""
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
