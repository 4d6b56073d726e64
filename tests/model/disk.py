# SPDX-License-Identifier: Apache-2.0
"""The files of the simulated device: what POSIX promises and no more.

Bytes are durable after fsync of their file, names after fsync of their folder. A power cut keeps any beginning of the
unsynced bytes of a file, and any number of the unsynced name changes, in order. A soft reset keeps everything.
"""

from __future__ import annotations

import errno
import io
import os
import random
from collections.abc import Callable
from typing import Any

from tests.model.virtual import PowerCut


class _Inode:
    def __init__(self) -> None:
        self.data = b""
        self.durable = b""


class Disk:
    """Also stands for the modules `os` and `edgeagent.posix`, as far as edgeagent.compat uses them."""

    def __init__(self, on_change: Callable[[], str | None]) -> None:
        """on_change: asked before each change: None, "before" | "torn" | "after" for a power cut there, or "full"."""
        self._on_change = on_change
        self._names: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}
        self._pending: list[tuple[str, str, _Inode]] = []  # from, to; to "" removes; from "" is a new file
        self._folders = {"", "/"}
        self._open: list[_Inode] = []
        self.dead = False
        self.errors = 0  # writes that were refused
        self.path = os.path

    # --- power

    def cut(self, rng: random.Random) -> None:
        """Power is gone; what is left is what was durable, and chance."""
        for change in self._pending[: rng.randint(0, len(self._pending))]:
            self._apply(self._durable, *change)
        for inode in [*self._names.values(), *self._durable.values()]:
            if inode.data != inode.durable and rng.random() < 0.7:
                inode.durable = inode.data[: rng.randint(0, len(inode.data))]
            inode.data = inode.durable
        self._names = dict(self._durable)
        self._pending = []

    def soft_reset(self) -> None:
        """Everything that was written stays."""
        self.sync_dir("")
        for inode in self._names.values():
            inode.durable = inode.data

    @staticmethod
    def _apply(names: dict[str, _Inode], old: str, new: str, inode: _Inode) -> None:
        names.pop(old, None)
        if new:
            names[new] = inode

    def _change(self, act: Callable[[], None], torn: Callable[[], None] | None = None) -> None:
        if self.dead:
            raise PowerCut("off")
        fate = self._on_change()
        if fate == "full":
            self.errors += 1
            raise OSError(errno.ENOSPC, "no space")
        if fate == "torn" and torn:
            torn()
        elif fate != "before":
            act()
        if fate:
            raise PowerCut(f"file operation, {fate}")

    def exists(self, path: str) -> bool:
        return path in self._names

    # --- os

    def stat(self, path: str) -> Any:
        if path in self._folders:
            return (0x41FF, 0, 0, 0, 0, 0, 0)
        if path not in self._names:
            raise OSError(errno.ENOENT, path)
        return (0x81FF, 0, 0, 0, 0, 0, len(self._names[path].data))

    def mkdir(self, path: str) -> None:
        self._change(lambda: self._folders.add(path))

    def rename(self, old: str, new: str) -> None:
        def act() -> None:
            change = old, new, self._names[old]
            self._apply(self._names, *change)
            self._pending.append(change)

        if old not in self._names:
            raise OSError(errno.ENOENT, old)
        self._change(act)

    def remove(self, path: str) -> None:
        def act() -> None:
            self._pending.append((path, "", self._names.pop(path)))

        if path not in self._names:
            raise OSError(errno.ENOENT, path)
        self._change(act)

    unlink = remove

    def fsync(self, number: int) -> None:
        def act() -> None:
            inode.durable = inode.data

        inode = self._open[number]
        self._change(act)

    # --- posix and built-ins

    def sync_dir(self, path: str) -> None:
        def act() -> None:
            for change in self._pending:
                self._apply(self._durable, *change)
            self._pending = []

        self._change(act) if path else act()

    def open(self, path: str, mode: str) -> Any:
        if mode == "rb":
            if path not in self._names:
                raise OSError(errno.ENOENT, path)
            return io.BytesIO(self._names[path].data)

        def act() -> None:
            if path in self._names:
                self._names[path].data = b""
            else:
                self._names[path] = _Inode()
                self._pending.append(("", path, self._names[path]))

        self._change(act)
        self._open = [self._names[path]]
        return _Writer(self, self._names[path])

    def write(self, inode: _Inode, data: bytes) -> None:
        def act() -> None:
            inode.data += data

        def torn() -> None:
            inode.data += data[: len(data) // 2]

        self._change(act, torn)


class _Writer:
    def __init__(self, disk: Disk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode

    def write(self, data: bytes) -> None:
        self._disk.write(self._inode, bytes(data))

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: Any) -> None:
        pass
