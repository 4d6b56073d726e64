# SPDX-License-Identifier: Apache-2.0
"""A file system that does not read twice what cannot have changed: littlefs walks its folders anew for each path, which
is half the time of a boot.

What a name stands for is remembered until something is done to that name or the device boots, and a list of names until
the next operation of the flash. With a flash that fails littlefs is asked each time.
"""

import io

KEPT = 16384  # bytes of a file that are remembered


class View:
    """What vfs.mount takes. inner: the real file system. flash: has `count`, of its operations."""

    def __init__(self, inner, flash):
        self.inner = inner
        self.flash = flash
        flash.view = self
        for name in ("chdir", "getcwd", "statvfs", "umount", "mount"):
            setattr(self, name, getattr(inner, name))
        self.forget()

    def forget(self):
        self.stats = {}
        self.files = {}
        self.written = set()  # names that were opened for writing: when they change nobody tells
        self.folders = {}
        self.count = -1

    def _changes(self, path):
        self.stats.pop(path, None)
        self.files.pop(path, None)

    def mkdir(self, path):
        self._changes(path)
        self.inner.mkdir(path)

    def remove(self, path):
        self._changes(path)
        self.inner.remove(path)

    def rmdir(self, path):
        self.forget()
        self.inner.rmdir(path)

    def rename(self, old, new):
        if old in self.written:
            self._changes(old)
            self._changes(new)
            self.inner.rename(old, new)
            self.written.discard(old)
            self.written.discard(new)  # what has this name now was written before and is closed
        else:
            self.inner.rename(old, new)
            self.forget()

    def stat(self, path):
        found = self.stats.get(path)
        if found is None:
            try:
                found = self.inner.stat(path)
            except OSError as error:
                found = error.errno
            if path not in self.written:
                self.stats[path] = found
        if isinstance(found, int):
            raise OSError(found)
        return found

    def ilistdir(self, path):
        if self.count != self.flash.count:
            self.count = self.flash.count
            self.folders = {}
        if path not in self.folders:
            self.folders[path] = list(self.inner.ilistdir(path))
        return iter(self.folders[path])

    def open(self, path, mode):
        if mode not in ("r", "rb"):
            self._changes(path)
            self.written.add(path)
            return self.inner.open(path, mode)
        data = self.files.get(path)
        if data is None:
            file = self.inner.open(path, "rb")
            if path in self.written or self.stat(path)[6] > KEPT:
                if mode == "rb":
                    return file
                file.close()
                return self.inner.open(path, mode)
            data = self.files[path] = file.read()
            file.close()
        return io.BytesIO(data) if mode == "rb" else io.StringIO(data.decode())
