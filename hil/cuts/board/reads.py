# SPDX-License-Identifier: Apache-2.0
"""Reads that go wrong, once: of the flash, or of a file. What is on the flash stays as it is.

A block that cannot be read is littlefs's to report. That a read gives other bytes than are there is tried on files:
of its own folders littlefs would believe them, and there the agent has no say.
"""

import io

from hil.cuts.board import device as devices
from hil.cuts.board.flash import Flash, number

# How a file may be misread: a bit of its first, second, third or last quarter, only the first half of it, not at all.
FILES = ("flip0", "flip1", "flip2", "flip3", "short", "unread")


class Misread(Flash):
    """A flash that fails at its read number `read_at` (from 0). Reads of the harness, while `watched`, do not count."""

    def __init__(self, data, mark, read_at):
        Flash.__init__(self, data, mark)
        self.misreads = True
        self.read_at = read_at
        self.reads = 0

    def readblocks(self, block, buffer, offset=0):
        if not self.watched and not self.dead:
            self.reads += 1
            if self.reads == self.read_at + 1:
                return -5
        return Flash.readblocks(self, block, buffer, offset)


class Files:
    """A file system of which file number `at` that is opened for reading (from 0) is misread. inner: the real one."""

    def __init__(self, inner, flash, at, kind, seed):
        self.inner = inner
        self.flash = flash
        flash.view = self
        flash.misreads = True
        self.at = at
        self.kind = kind
        self.seed = seed
        self.opened = 0

    def forget(self):
        """Nothing is kept here."""

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def _imported(self, path):
        """An application that is misread while it is started is another application, of which nothing can be said."""
        inside = "/store/" in path or path[:9] in ("/slots/a/", "/slots/b/")
        return inside and not devices.Device.current.ran

    def open(self, path, mode):
        file = self.inner.open(path, mode)
        if mode not in ("r", "rb") or self.flash.watched or self._imported(path):
            return file
        self.opened += 1
        if self.opened != self.at + 1:
            return file
        file.close()
        if self.kind == "unread":
            raise OSError(5)
        file = self.inner.open(path, "rb")
        data = bytearray(file.read())
        file.close()
        if self.kind == "short":
            data = data[: len(data) // 2]
        elif data:
            place = (len(data) * int(self.kind[4:]) + number(self.seed, len(data))) // 4
            data[place] ^= 1 << number(self.seed + "b", 8)
        return io.BytesIO(data) if mode == "rb" else io.StringIO(data.decode())
