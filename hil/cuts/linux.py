# SPDX-License-Identifier: Apache-2.0
"""Linux: what may be left of files whose fsync had not come yet. Plays one task, given as JSON, and prints lines as
board/program.py does.

The scenario runs once on real files while every operation on them is recorded. POSIX promises the bytes of a file after
its fsync and names after the fsync of their folder, and nothing else: of what is pending at a moment any part may be on
disk, in any order. A crash state is a moment and such a choice, linux-update/37.5 the fifth choice before operation 37.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ALL = 4  # so many pending operations are tried in all combinations
TICK_S = 0.3
Operation = tuple[Any, ...]
Tree = dict[str, bytes | None]  # path: content, None for a folder


class Recorder:
    """Stands before `open` and `os` while it is entered, for paths below `root`. operations: (name, ..., facts).

    Names: create(path, inode), truncate(inode), write(inode, place, bytes), sync(inode), rename(old, new),
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
            self.add("truncate", inode)
        self._descriptors[file.fileno()] = inode
        return _File(self, inode, file)

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

    def __init__(self, recorder: Recorder, inode: int, file: Any) -> None:
        self._recorder = recorder
        self._inode = inode
        self._file = file

    def write(self, data: Any) -> Any:
        self._recorder.add("write", self._inode, self._file.tell(), bytes(data))
        return self._file.write(data)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Disk:
    """Names, folders and contents, as operations make them."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.folders: set[str] = set()
        self.data: dict[int, bytes] = {}

    def copy(self) -> Disk:
        made = Disk()
        made.names = dict(self.names)
        made.folders = set(self.folders)
        made.data = dict(self.data)
        return made

    def apply(self, operation: Operation, half: bool = False) -> None:
        """Do it if it can be done: what it stands on may be missing. half: of a write."""
        name, first = operation[:2]
        if name == "create":
            self.names[first] = operation[2]
            self.data.setdefault(operation[2], b"")
        elif name == "truncate":
            self.data[first] = b""
        elif name == "write":
            _, _, place, new = operation[:4]
            new = new[: len(new) // 2] if half else new
            held = self.data.get(first, b"").ljust(place, b"\0")
            self.data[first] = held[:place] + new + held[place + len(new) :]
        elif name == "rename":
            for table in (self.names, dict.fromkeys(self.folders, 0)):
                for path in [path for path in table if path == first or path.startswith(first + "/")]:
                    moved = operation[2] + path[len(first) :]
                    if path in self.names:
                        self.names[moved] = self.names.pop(path)
                    else:
                        self.folders.discard(path)
                        self.folders.add(moved)
        elif name == "unlink":
            self.names.pop(first, None)
        elif name == "mkdir":
            self.folders.add(first)
        elif name == "rmdir":
            self.folders.discard(first)

    def tree(self, root: str) -> Tree:
        """What can be reached from `root`, whose path is taken off."""
        found: Tree = {}
        for path in sorted(self.folders):
            if self._reached(path, root):
                found[path[len(root) :]] = None
        for path, inode in sorted(self.names.items()):
            if self._reached(path, root):
                found[path[len(root) :]] = self.data.get(inode, b"")
        return found

    def _reached(self, path: str, root: str) -> bool:
        parent = path.rpartition("/")[0]
        while parent != root:
            if parent not in self.folders:
                return False
            parent = parent.rpartition("/")[0]
        return True


def _settles(operation: Operation, sync: Operation) -> bool:
    """True if `sync` makes `operation` durable."""
    if sync[0] == "sync":
        return operation[0] in ("write", "truncate") and operation[1] == sync[1]
    if operation[0] == "rename":
        return sync[1] in (operation[1].rpartition("/")[0], operation[2].rpartition("/")[0])
    return isinstance(operation[1], str) and operation[1].rpartition("/")[0] == sync[1]


def _choices(count: int) -> Iterator[tuple[bool, ...]]:
    """Which of `count` pending operations reached the disk: all choices of a few, else the telling ones."""
    if count <= ALL:
        for bits in range(1 << count):
            yield tuple(bool(bits >> n & 1) for n in range(count))
        return
    yield (False,) * count
    yield (True,) * count
    for n in range(count):
        yield tuple(at == n for at in range(count))
        yield tuple(at != n for at in range(count))
        yield tuple(at < n for at in range(count))


def _board(name: str) -> Any:
    """A module of the part that is written for MicroPython; after `main` has seen to where the agent comes from."""
    return importlib.import_module("hil.cuts.board." + name)


class Rig:
    """One scenario, recorded."""

    def __init__(self, name: str, folder: Path) -> None:
        device = self.devices = _board("device")
        self.scenario = (_board("scenarios").SCENARIOS | _board("deltas").SCENARIOS)[name]()
        self.name = "linux-" + name
        self.folder = folder
        self.count = 0
        self.seen: set[bytes] = set()
        root = str(folder / "first")
        os.mkdir(root)
        recorder = Recorder(root)
        world: Any = device.World()
        recorder.world = world
        with recorder:
            self.scenario.factory(root)
            self.start = len(recorder.operations)
            made = device.Device(root, self.scenario, world)
            self.run(made)
        self.operations = recorder.operations
        self.root = root
        self.last = world.facts

    def run(self, made: Any) -> None:
        importlib.invalidate_caches()
        sys.path_importer_cache.clear()
        if self.scenario.power_on(made):
            self.scenario.end(made, True)

    def states(self, k: int) -> Iterator[Tree]:
        """What may be found after a crash before operation k. What the factory did is durable."""
        disk = Disk()
        pending: list[Operation] = []
        for number, operation in enumerate(self.operations[:k]):
            if number < self.start:
                disk.apply(operation)
            elif operation[0] in ("sync", "syncdir"):
                for one in [one for one in pending if _settles(one, operation)]:
                    disk.apply(one)
                    pending.remove(one)
            else:
                pending.append(operation)
        for chosen in _choices(len(pending)):
            for half in (False, True):
                state = disk.copy()
                for operation, there in zip(pending, chosen, strict=True):
                    if there:
                        state.apply(operation, half)
                yield state.tree(self.root)
                if not any(there and one[0] == "write" for one, there in zip(pending, chosen, strict=True)):
                    break

    def play(self, tree: Tree, facts: Any) -> None:
        """Power on with these files. Raises Problem."""
        self.count += 1
        root = self.folder / str(self.count)
        root.mkdir()
        try:
            for path, data in tree.items():
                place = Path(str(root) + path)
                if data is None:
                    place.mkdir()
                else:
                    place.write_bytes(data)
            self.run(self.devices.Device(str(root), self.scenario, self.devices.World(facts)))
        finally:
            shutil.rmtree(root)

    def cases(self) -> Iterator[tuple[str, Tree, Any]]:
        for k in range(self.start, len(self.operations) + 1):
            facts = self.operations[k][-1] if k < len(self.operations) else self.last
            for n, tree in enumerate(self.states(k)):
                yield f"{self.name}/{k}.{n}", tree, facts


def judge(rig: Rig, tree: Tree, facts: Any) -> str:
    """What is wrong, or nothing."""
    try:
        rig.play(tree, facts)
    except rig.devices.Problem as problem:
        return str(problem)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    wanted = json.loads(sys.argv[1])
    case = wanted.get("replay", "")
    name = case.partition("/")[0].removeprefix("linux-") if case else wanted["scenario"]
    logging.disable(logging.CRITICAL)
    sys.dont_write_bytecode = True
    setattr(os, "fsync", lambda number: None)  # noqa: B010  nothing here needs to survive the machine
    _board("device").prepare()
    counts = {"cases": 0, "states": 0, "bad_count": 0}
    told = time.monotonic()
    shared = Path("/dev/shm")  # memory, where there is such a folder
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        try:
            rig = Rig(name, Path(folder))
        except Exception as error:
            print(json.dumps({"bad": f"linux-{name}/clean", "problem": f"{type(error).__name__}: {error}"}))
            print(json.dumps({"end": True, "cases": 1, "states": 1, "cuts": 0, "operations": 0}))
            return
        for one, tree, facts in rig.cases():
            if case and one != case:
                continue
            counts["cases"] += 1
            key = hashlib.sha256(repr((sorted(tree.items()), sorted(facts.items()))).encode()).digest()
            if key in rig.seen:
                continue
            rig.seen.add(key)
            counts["states"] += 1
            problem = judge(rig, tree, facts)
            if problem:
                counts["bad_count"] += 1
                if counts["bad_count"] <= 20:
                    print(json.dumps({"bad": one, "problem": problem[:600]}))
                if counts["bad_count"] == wanted.get("limit"):
                    break
            if time.monotonic() - told > TICK_S:
                told = time.monotonic()
                print(json.dumps({"cases": counts["cases"]}), flush=True)
        print(json.dumps({"end": True, "cuts": 0, "operations": len(rig.operations), **counts}))


if __name__ == "__main__":
    main()
