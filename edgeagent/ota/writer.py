# SPDX-License-Identifier: Apache-2.0
"""Verified blocks into the files of a slot: each block is checked against the signed hash list before it is written.

A block may span files. Every SYNC_BLOCKS blocks the open file is synced, so that a reset costs at most that much
download; `resume` finds out from the slot itself what is there, by the same hashes, and needs no journal.
"""

import asyncio
import hashlib
import os

from edgeagent import compat
from edgeagent.compat import const
from edgeagent.errors import UpdateError

_BLOCK = const(4096)  # LIMITS.BLOCK; a number here is smaller than a name
SYNC_BLOCKS = 8  # 32 KiB; a littlefs sync copies the last, half-filled flash block, so not at every block


class Writer:
    """Fills `folder` with the files of a manifest."""

    def __init__(self, folder: str, manifest: "compat.Any", hashes: "bytes | bytearray") -> None:
        """hashes: 32 bytes for each block, then for each file, not yet trusted. Gives `manifest` those of its files.

        Raises UpdateError "bundle" if they are not the signed ones.
        """
        at = 32 * manifest.blocks
        if len(hashes) != at + 32 * len(manifest.files) or hashlib.sha256(hashes).digest() != manifest.blocks_sha256:
            raise UpdateError("bundle", "the hash list is of another artifact")
        for entry in manifest.files:
            entry[2] = bytes(hashes[at : at + 32])
            at += 32
        self._folder = folder + "/"
        self._manifest = manifest
        self._hashes = hashes
        self._index = 0  # of the file that the next byte belongs to
        self._offset = 0  # of the next byte in that file
        self._file: "compat.Any" = None
        self._good = 0  # blocks that were found on flash

    async def resume(self) -> int:
        """Number of the first block to fetch: all before it are on flash and match their hashes. Yields per block.

        What does not belong to the artifact is deleted: an application that ran from here may have left files, and a
        stale module would shadow a new one.
        """
        self._tidy(self._folder)
        try:
            await self._read_back()
        except UpdateError:
            pass
        self._seek(self._good)
        return self._good

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

    async def _read_back(self) -> None:
        """Hash what is on flash: each block, each file and the whole. Sets `_good`.

        Raises UpdateError "file-hash" naming the first file that is not what was signed, OSError.
        """
        view = memoryview(bytearray(512))
        whole = hashlib.sha256()
        block = hashlib.sha256()
        left = self._manifest.size
        room = min(_BLOCK, left)  # until the end of the block
        self._good = 0
        for name, size, digest, mode in self._manifest.files:
            path = self._folder + name
            bad = UpdateError("file-hash", name)
            if not compat.exists(path) or os.stat(path)[6] > size:
                raise bad
            one = hashlib.sha256()
            with open(path, "rb") as f:  # noqa: ASYNC230  no other kind of file on boards
                while True:
                    part = view[: f.readinto(view[:room])]
                    if not part:
                        break
                    for sha256 in (one, block, whole):
                        sha256.update(part)
                    left -= len(part)
                    room -= len(part)
                    if not room:
                        if not self._matches(block, self._good):
                            raise bad
                        self._good += 1
                        block = hashlib.sha256()
                        room = min(_BLOCK, left)
                        await asyncio.sleep(0)
            if one.digest() != digest:
                raise bad
            if mode is not None and not compat.MICROPYTHON:
                os.chmod(path, mode)
            compat.sync_dir(path[: path.rfind("/")])
        if whole.digest() != self._manifest.sha256:
            raise UpdateError("file-hash", "payload")

    def _matches(self, block: "compat.Any", number: int) -> bool:
        return bool(block.digest() == self._hashes[32 * number : 32 * number + 32])

    def _seek(self, number: int) -> None:
        """The next byte is the first one of block `number`."""
        position = min(number * _BLOCK, self._manifest.size)
        self._index = 0
        while position > self._manifest.files[self._index][1]:
            position -= self._manifest.files[self._index][1]
            self._index += 1
        self._offset = position

    def block(self, number: int, data: "bytes | memoryview") -> None:
        """Verify block `number` (they must come in order) and write it. Raises UpdateError "block-hash", OSError."""
        if not self._matches(hashlib.sha256(data), number):
            raise UpdateError("block-hash", "block %d" % number)
        view = memoryview(data)
        try:
            while len(view):
                part = view[: self._open()]
                self._file.write(part)
                self._offset += len(part)
                view = view[len(part) :]
        except Exception:
            # Out of memory or space: the same block may come again, and then starts where this one did.
            self.close()
            self._seek(number)
            raise
        if number % SYNC_BLOCKS == SYNC_BLOCKS - 1:
            compat.sync_file(self._file)

    def _open(self) -> int:
        """Open the file of the next byte; full and empty ones on the way are closed. Returns how much it still takes.

        0 if all are complete.
        """
        files = self._manifest.files
        while self._index < len(files):
            name, size = files[self._index][:2]
            if self._file is None:
                path = self._folder + name
                compat.make_dirs(path[: path.rfind("/")])
                self._file = open(path, "r+b" if self._offset else "wb")
                self._file.seek(self._offset)
            if self._offset < size:
                return int(size - self._offset)
            self.close()
            self._index += 1
            self._offset = 0
        return 0

    def close(self) -> None:
        """Close the open file, keeping what was written. Raises OSError."""
        f = self._file
        self._file = None
        if f:
            try:
                compat.sync_file(f)
            finally:
                f.close()

    async def finish(self) -> None:
        """Read everything back from flash: every file and the whole payload must have the signed hashes.

        Raises UpdateError "file-hash" naming the file, OSError. Yields per block.
        """
        if self._open():
            raise UpdateError("file-hash", self._manifest.files[self._index][0])
        await self._read_back()
