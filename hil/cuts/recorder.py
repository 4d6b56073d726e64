# SPDX-License-Identifier: Apache-2.0
"""Records what a program does to the files of a folder, in the order in which it does it."""

from __future__ import annotations

import builtins
import os
from typing import Any

Operation = tuple[Any, ...]


class Recorder:
    """Stands before `open` and `os` while it is entered, for paths below `root`. operations: (name, ..., facts).

    Names: create(path, inode), truncate(inode, size), write(inode, place, bytes), sync(inode), rename(old, new),
    unlink(path), mkdir(path), rmdir(path), syncdir(path).
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.world: Any = None
        self.operations: list[Operation] = []
        self.inodes: dict[str, int] = {}
        self._descriptors: dict[int, str | int] = {}
        self._number = 0
        self._kept: dict[tuple[Any, str], Any] = {}

    def add(self, *operation: Any) -> None:
        self.operations.append((*operation, self.world.facts))

    def new(self, path: str) -> int:
        self._number += 1
        self.inodes[path] = self._number
        self.add("create", path, self._number)
        return self._number

    def mine(self, path: Any) -> bool:
        return isinstance(path, str) and path.startswith(self.root)

    def _open(self, path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        real = self._kept[builtins, "open"]
        if not self.mine(path) or not set(mode) & set("wa+"):
            return real(path, mode, *arguments, **named)
        there = path in self.inodes
        file = real(path, mode, *arguments, **named)
        inode = self.inodes[path] if there else self.new(path)
        if there and "w" in mode:
            self.add("truncate", inode, 0)
        self._descriptors[file.fileno()] = inode
        return _File(self, inode, file, file.tell() if "a" in mode else None)

    def _os_open(self, path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        number: int = self._kept[os, "open"](path, flags, *arguments, **named)
        if self.mine(path):
            if flags & os.O_CREAT and path not in self.inodes:
                self.new(path)
            self._descriptors[number] = self.inodes.get(path, path)
        return number

    def _fsync(self, number: int) -> None:
        held = self._descriptors.get(number)
        if isinstance(held, int):
            self.add("sync", held)
        elif held is not None:
            self.add("syncdir", held.rstrip("/"))

    def _rename(self, old: Any, new: Any) -> None:
        self._kept[os, "rename"](old, new)
        if self.mine(old):
            moved = [path for path in self.inodes if path == old or path.startswith(old + "/")]
            for path in moved:
                self.inodes[new + path[len(old) :]] = self.inodes.pop(path)
            self.add("rename", old, new)

    def _unlink(self, path: Any, **named: Any) -> None:
        self._kept[os, "unlink"](path, **named)
        if self.inodes.pop(path, None):
            self.add("unlink", path)

    def _link(self, old: Any, new: Any) -> None:
        self._kept[os, "link"](old, new)
        if self.mine(new):
            self.inodes[new] = self.inodes[old]
            self.add("create", new, self.inodes[new])

    def _mkdir(self, path: Any, *arguments: Any) -> None:
        self._kept[os, "mkdir"](path, *arguments)
        if self.mine(path):
            self.add("mkdir", path)

    def _rmdir(self, path: Any, **named: Any) -> None:
        self._kept[os, "rmdir"](path, **named)
        if self.mine(path):
            self.add("rmdir", path)

    def _listdir(self, path: Any = ".") -> Any:
        return sorted(self._kept[os, "listdir"](path))

    def __enter__(self) -> Recorder:
        self._kept = {}
        for place, name, function in (
            (os, "link", self._link),
            (builtins, "open", self._open),
            (os, "open", self._os_open),
            (os, "fsync", self._fsync),
            (os, "rename", self._rename),
            (os, "unlink", self._unlink),
            (os, "remove", self._unlink),
            (os, "mkdir", self._mkdir),
            (os, "rmdir", self._rmdir),
            (os, "listdir", self._listdir),
        ):
            self._kept[place, name] = getattr(place, name)
            setattr(place, name, function)
        return self

    def __exit__(self, *_: object) -> None:
        for (place, name), function in self._kept.items():
            setattr(place, name, function)


class _File:
    """A file open for writing."""

    def __init__(self, recorder: Recorder, inode: int, file: Any, end: int | None) -> None:
        """end: bytes of a file that is appended to, whatever it tells of its place; None for others."""
        self._recorder = recorder
        self._inode = inode
        self._file = file
        self._end = end

    def write(self, data: Any) -> Any:
        place = self._file.tell() if self._end is None else self._end
        self._recorder.add("write", self._inode, place, bytes(data))
        if self._end is not None:
            self._end += len(data)
        return self._file.write(data)

    def truncate(self, size: int) -> Any:
        self._recorder.add("truncate", self._inode, size)
        if self._end is not None:
            self._end = size
        return self._file.truncate(size)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
