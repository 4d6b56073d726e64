# SPDX-License-Identifier: Apache-2.0
"""Verified blocks into the store of the slots: each is checked against the signed hash list before it is written.

A file lies in slots/store under the first 16 bytes of its SHA-256, "-MODE" if the manifest gives one. The name promises
nothing: what is complete is found out by hashing, and then never opened for writing again. So what the running version
has, or an earlier try has left, is neither fetched nor written; only in a block that it shares with other files does it
come again.

Blocks come in any order and may span files. What was written is synced block by block, so that a reset costs the block
under way and no other; `resume` finds out from the store itself what is there, by the same hashes: it needs no journal.
What is done once, before the blocks and after them, is in index.py, which a board need not hold meanwhile.
(A sync makes littlefs begin a new flash block: one more erase for each 4 KiB, for nothing that is downloaded twice.)
"""

import binascii
import hashlib
import io
import struct

from edgeagent import compat
from edgeagent.compat import const
from edgeagent.errors import UpdateError

_BLOCK = const(4096)  # LIMITS.BLOCK; a number here is smaller than a name
# In the table, beside a file's mode: it has none; complete; under its second name.
NO_MODE = const(0x8000)
COMPLETE = const(0x4000)
SECOND = const(0x2000)


class Writer:
    """Fills `slot` with the files of a manifest. have: bytearray, a bit for each block that is on flash (after
    `resume`); as Fetcher.fetch takes it. count: number of files.
    """

    PLAIN = False

    def __init__(self, slot: str, manifest: "compat.Any", hashes: "compat.Any") -> None:
        """slot: its path. hashes: open file (or bytes) of 32 bytes for each block, then for each file, not yet trusted.
        On boards it is too large for the heap, and of a file the part that is needed is read.

        Raises UpdateError "bundle" if they are not the signed ones.
        """
        from edgeagent.ota import index

        if not hasattr(hashes, "seek"):
            hashes = io.BytesIO(hashes)
        self.table = index.table(manifest, hashes)
        self.slot = slot
        self.manifest = manifest
        self.hashes = hashes
        self._file: "compat.Any" = None
        self._number = -1  # of the open file
        self.have = bytearray((manifest.blocks + 7) // 8)
        self.count = len(manifest.files)

    def matches(self, digest: "compat.Any", number: int) -> bool:
        self.hashes.seek(32 * number)
        return digest.digest() == self.hashes.read(32)  # type: ignore[no-any-return]

    def entry(self, number: int) -> "tuple[int, ...]":
        """(size, flags) of a file."""
        return struct.unpack_from("<IH", self.table, 6 * number)

    def name(self, number: int) -> str:
        """Of a file, in the store."""
        self.hashes.seek(32 * (self.manifest.blocks + number))
        name = binascii.hexlify(self.hashes.read(16)).decode()
        flags = self.entry(number)[1]
        if not flags & NO_MODE:
            name += "-%o" % (flags & 0o777)
        return name + "x" if flags & SECOND else name

    def path(self, number: int) -> str:
        """Where the content of the manifest's `number`-th file is."""
        return self.slot[:-1] + "store/" + self.name(number)

    def label(self, number: int) -> str:
        """Path of the `number`-th file in the manifest, for people."""
        from edgeagent.ota.index import lines

        for entry in lines(self.slot + ".idx"):  # to its end, which closes the file
            if not number:
                path = entry[0]
            number -= 1
        return path  # type: ignore[no-any-return]

    def resume(self) -> "compat.Any":
        """As index.resume."""
        from edgeagent.ota import index

        return index.resume(self)

    def block(self, number: int, data: "bytes | memoryview") -> None:
        """Verify block `number` and write it. Raises UpdateError "block-hash", OSError; it may come again then."""
        if not self.matches(hashlib.sha256(data), number):
            raise UpdateError("block-hash", "block %d" % number)
        view = memoryview(data)
        at = number * _BLOCK
        try:
            for index in range(self.count):
                size, flags = self.entry(index)
                if at < size and view:
                    if not flags & COMPLETE:
                        self.open(index)
                        self._file.seek(at)
                        self._file.write(view[: size - at])
                    view = view[size - at :]
                    at = size  # what is left begins the next file
                at -= size
            if self._file:
                compat.sync_file(self._file)
        except Exception:
            self.close()
            raise

    def open(self, number: int) -> None:
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
            with f:
                compat.sync_file(f)

    def finish(self, whole: "compat.Any" = None) -> "compat.Any":
        """As index.finish."""
        from edgeagent.ota import index

        return index.finish(self, whole)
