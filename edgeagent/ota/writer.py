# SPDX-License-Identifier: Apache-2.0
"""Verified blocks into the files of a slot: each block is checked against the signed hash list before it is written.

A block may span files. Every SYNC_BLOCKS blocks the open file is synced, so that a reset costs at most that much
download; `resume` finds out from the slot itself what is there, by the same hashes, and needs no journal.
"""

import asyncio
import hashlib
import os

from edgeagent import compat
from edgeagent.compat import Any, const
from edgeagent.errors import UpdateError
from edgeagent.limits import LIMITS

SYNC_BLOCKS = const(8)  # 32 KiB; a littlefs sync copies the last, half-filled flash block, so not at every block
_BLOCK = LIMITS.BLOCK


class Writer:
    """Fills `folder` with the files of a manifest."""

    def __init__(self, folder: str, manifest: Any, hashes: "bytes | bytearray") -> None:
        """hashes: 32 bytes a block, not yet trusted. Raises UpdateError "block-hash" if they are not the signed."""
        if len(hashes) != 32 * manifest.blocks or hashlib.sha256(hashes).digest() != manifest.blocks_sha256:
            raise UpdateError("block-hash", "the list of block hashes is not the signed one")
        self._folder = folder
        self._manifest = manifest
        self._hashes = hashes
        self._index = 0  # of the file that the next byte belongs to
        self._offset = 0  # of the next byte in that file
        self._file: "Any" = None
        self._unsynced = 0

    def _path(self, index: int) -> str:
        return self._folder + "/" + str(self._manifest.files[index][0])

    def _good(self, number: int, data: "bytes | memoryview") -> bool:
        return hashlib.sha256(data).digest() == self._hashes[32 * number : 32 * number + 32]

    async def resume(self) -> int:
        """Number of the first block to fetch: all before it are on flash and match their hashes. Yields per block.

        What does not belong to the artifact is deleted: an application that ran from here may have left files, and a
        stale module would shadow a new one.
        """
        self._tidy(self._folder, len(self._folder) + 1)
        present = 0
        for index, entry in enumerate(self._manifest.files):
            try:
                size = os.stat(self._path(index))[6]
            except OSError:
                break
            if size > entry[1]:
                break
            present += size
            if size < entry[1]:
                break
        full = present // _BLOCK if present < self._manifest.size else self._manifest.blocks
        number = 0
        buffer = bytearray(_BLOCK)
        while number < full and self._good(number, self._read(number, buffer)):
            number += 1
            await asyncio.sleep(0)
        self._seek(number * _BLOCK)
        return number

    def _tidy(self, folder: str, start: int) -> bool:
        """Delete all but the artifact's files; True if any of those is below `folder`."""
        wanted = False
        for name in os.listdir(folder):
            path = folder + "/" + name
            if compat.is_dir(path):
                keep = self._tidy(path, start)
            else:
                keep = path[start:] in [entry[0] for entry in self._manifest.files]
            if not keep:
                compat.remove_tree(path)
            wanted = wanted or keep
        return wanted

    def _spans(self, start: int, length: int) -> "Any":
        """(file index, offset in it, bytes) for each file that payload bytes start … start+length touch."""
        for index, entry in enumerate(self._manifest.files):
            if length <= 0:
                return
            size = entry[1]
            if start < size:
                part = min(length, size - start)
                yield index, start, part
                length -= part
                start = size
            start -= size

    def _read(self, number: int, buffer: bytearray) -> memoryview:
        view = memoryview(buffer)
        at = 0
        for index, offset, length in self._spans(number * _BLOCK, _BLOCK):
            with open(self._path(index), "rb") as f:
                f.seek(offset)
                f.readinto(view[at : at + length])
            at += length
        return view[:at]

    def _seek(self, position: int) -> None:
        self._index = 0
        while self._index < len(self._manifest.files) and position >= self._manifest.files[self._index][1]:
            if position == 0:
                break  # an empty file that is yet to be made
            position -= self._manifest.files[self._index][1]
            self._index += 1
        self._offset = position

    def block(self, number: int, data: "bytes | memoryview") -> None:
        """Verify block `number` (they must come in order) and write it. Raises UpdateError "block-hash", OSError."""
        if not self._good(number, data):
            raise UpdateError("block-hash", "block %d does not match the signed list" % number)
        view = memoryview(data)
        try:
            while len(view):
                f = self._open()
                size = self._manifest.files[self._index][1]
                part = view[: size - self._offset]
                f.write(part)
                self._offset += len(part)
                view = view[len(part) :]
                if self._offset == size:
                    self._next()
        except Exception:
            # Out of memory or space: the same block may come again, and then starts where this one did.
            self.close()
            self._seek(number * _BLOCK)
            raise
        self._unsynced += 1
        if self._unsynced >= SYNC_BLOCKS and self._file is not None:
            compat.sync_file(self._file)
            self._unsynced = 0

    def _open(self) -> "Any":
        while self._manifest.files[self._index][1] == 0:
            self._create()
            self._next()
        if self._file is None:
            if self._offset:
                self._file = open(self._path(self._index), "r+b")
                self._file.seek(self._offset)
            else:
                self._create()
        return self._file

    def _create(self) -> None:
        path = self._path(self._index)
        compat.make_dirs(path[: path.rfind("/")])
        self._file = open(path, "wb")

    def _next(self) -> None:
        self.close()
        self._index += 1
        self._offset = 0

    def close(self) -> None:
        """Close the open file, keeping what was written. Raises OSError."""
        f = self._file
        self._file = None
        if f is not None:
            try:
                compat.sync_file(f)
            finally:
                f.close()

    async def finish(self) -> None:
        """Read everything back from flash: every file and the whole payload must have the signed hashes.

        Raises UpdateError "file-hash" naming the file, OSError. Yields per block.
        """
        files = self._manifest.files
        while self._index < len(files):
            if files[self._index][1]:
                raise UpdateError("file-hash", "%s was not written" % files[self._index][0])
            self._create()
            self._next()
        whole = hashlib.sha256()
        buffer = bytearray(_BLOCK)
        view = memoryview(buffer)
        folders = set()
        for index, (path, size, sha256, mode) in enumerate(files):
            one = hashlib.sha256()
            with open(self._path(index), "rb") as f:  # noqa: ASYNC230  no other kind of file on boards
                got = 0
                while True:
                    count = f.readinto(buffer)
                    if not count:
                        break
                    got += count
                    one.update(view[:count])
                    whole.update(view[:count])
                    await asyncio.sleep(0)
            if got != size or one.digest() != sha256:
                raise UpdateError("file-hash", "%s is not what was signed" % path)
            if mode is not None and not compat.MICROPYTHON:
                os.chmod(self._path(index), mode)
            folders.add(self._path(index)[: self._path(index).rfind("/")])
        if whole.digest() != self._manifest.sha256:
            raise UpdateError("file-hash", "the payload is not what was signed")
        for folder in folders:
            compat.sync_dir(folder)
