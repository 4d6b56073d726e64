# SPDX-License-Identifier: Apache-2.0
"""Linux: what may be left of files whose fsync had not come yet. Plays one task, given as JSON, and prints lines as
board/program.py does.

The scenario runs once on real files while every operation on them is recorded. POSIX promises the bytes of a file after
its fsync and names after the fsync of their folder, and nothing else: of what is pending at a moment any part may be on
disk, in any order. A crash state is a moment and such a choice, linux-update/37.5 the fifth choice before operation 37.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hil.cuts.recorder import Operation, Recorder

ALL = 4  # so many pending operations are tried in all combinations
TICK_S = 0.3
MODULES = ("updates", "jobs", "identities", "deltas")  # those of board/ whose scenarios a Linux machine has
Tree = dict[str, bytes | None]  # path: content, None for a folder


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

    def apply(self, operation: Operation, torn: str = "") -> None:
        """Do it if it can be done: what it stands on may be missing. torn: of writes; "half", or as many "zeros"."""
        name, first = operation[:2]
        if name == "create":
            self.names[first] = operation[2]
            self.data.setdefault(operation[2], b"")
        elif name == "truncate":
            self.data[first] = self.data.get(first, b"")[: operation[2]]
        elif name == "write":
            _, _, place, new = operation[:4]
            new = new[: len(new) // 2] if torn == "half" else bytes(len(new)) if torn else new
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


def put(tree: Tree, root: str) -> None:
    """Make the files of `tree` below `root`."""
    for path, data in tree.items():
        if data is None:
            os.mkdir(root + path)
        else:
            with open(root + path, "wb") as file:
                file.write(data)


def _board(name: str) -> Any:
    """A module of the part that is written for MicroPython; after `main` has seen to where the agent comes from."""
    return importlib.import_module("hil.cuts.board." + name)


class Rig:
    """One scenario, recorded."""

    def __init__(self, name: str, folder: Path) -> None:
        self.devices = _board("device")
        self.scenario = self.scenarios()[name]()
        self.name = "linux-" + name
        self.root = str(folder / "device")  # always the same: there are paths in records
        self.wanted: dict[str, Any] = {}  # of the task
        self.seen: set[bytes] = set()
        self.record(self.scenario.factory)

    def scenarios(self) -> dict[str, Any]:
        return {name: kind for module in MODULES for name, kind in _board(module).SCENARIOS.items()}

    def record(self, fill: Callable[[str], None], facts: Any = None) -> None:
        """fill: makes the files of a folder that are there at power-on. Raises Problem."""
        recorder = Recorder(self.root)
        world: Any = self.devices.World(facts)
        recorder.world = world
        os.mkdir(self.root)
        try:
            with recorder:
                fill(self.root)
                self.start = len(recorder.operations)
                self.run(self.devices.Device(self.root, self.scenario, world))
        finally:
            shutil.rmtree(self.root)
        self.operations = recorder.operations
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
            for torn in ("", "half", "zeros"):
                state = disk.copy()
                for operation, there in zip(pending, chosen, strict=True):
                    if there:
                        state.apply(operation, torn)
                yield state.tree(self.root)
                if not any(there and one[0] == "write" for one, there in zip(pending, chosen, strict=True)):
                    break

    def play(self, tree: Tree, facts: Any) -> None:
        """Power on with these files. Raises Problem."""
        os.mkdir(self.root)
        try:
            put(tree, self.root)
            self.run(self.devices.Device(self.root, self.scenario, self.devices.World(facts)))
        finally:
            shutil.rmtree(self.root)

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
            rig = importlib.import_module("hil.cuts.linux_image").RIGS.get(name, Rig)(name, Path(folder))
        except Exception as error:
            print(json.dumps({"bad": f"linux-{name}/clean", "problem": f"{type(error).__name__}: {error}"}))
            print(json.dumps({"end": True, "cases": 1, "states": 1, "cuts": 0, "operations": 0}))
            return
        rig.wanted = wanted
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
