# SPDX-License-Identifier: Apache-2.0
"""The outbox against a model, with crashes at any file operation: what was durable arrives, in order, once per number.

The disk keeps what POSIX promises and no more: bytes after fsync of the file, names after fsync of the folder. A power
cut leaves of unsynced bytes any beginning, or zeros; of unsynced name changes any number, in order. A kill leaves all
that was written. Hypothesis prints the steps that fail and the seed that repeats them.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from edgeagent import compat, log, outbox

PATH = "/state/outbox"


class Crash(BaseException):
    """The device stops here."""


class _Inode:
    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = b""


class Disk:
    """Stands for `os`, `open` and `edgeagent.posix` of the modules under test."""

    def __init__(self) -> None:
        self.names: dict[str, _Inode] = {}
        self.durable: dict[str, _Inode] = {}
        self.pending: list[tuple[str, str, _Inode]] = []  # (removed name, new name, file) not synced
        self.folders = {"/", ""}
        self.fuse = -1  # changes left until the crash
        self.mode = ""
        self.changes = 0

    def crash(self, power: bool, rng: random.Random) -> None:
        """What is on the disk afterwards."""
        self.fuse = -1
        if power:
            for old, new, inode in self.pending[: rng.randint(0, len(self.pending))]:
                self._rename(self.durable, old, new, inode)
            for inode in {id(one): one for one in [*self.names.values(), *self.durable.values()]}.values():
                if inode.data.startswith(inode.durable):
                    tail = bytes(inode.data[len(inode.durable) :])
                    tail = rng.choice([tail[: rng.randint(0, len(tail))], bytes(len(tail))])
                    inode.durable += tail
                elif rng.random() < 0.5:
                    inode.durable = bytes(inode.data)
                inode.data = bytearray(inode.durable)
            self.names = dict(self.durable)
        self.pending = []
        self.durable = dict(self.names)
        for inode in self.names.values():
            inode.durable = bytes(inode.data)

    def _change(self, act: Any, torn: Any = None) -> None:
        self.changes += 1
        self.fuse -= 1
        if self.fuse != -1:
            act()
            return
        if self.mode == "torn" and torn:
            torn()
        elif self.mode == "after":
            act()
        raise Crash

    @staticmethod
    def _rename(names: dict[str, _Inode], old: str, new: str, inode: _Inode) -> None:
        if old:
            names.pop(old, None)
        if new:
            names[new] = inode

    def _name(self, old: str, new: str, inode: _Inode) -> None:
        def act() -> None:
            self._rename(self.names, old, new, inode)
            self.pending.append((old, new, inode))

        self._change(act)

    # --- what the modules call

    def stat(self, path: str) -> Any:
        if path in self.folders:
            return (0x41FF, 0, 0, 0, 0, 0, 0)
        if path not in self.names:
            raise OSError(2, path)
        return (0x81FF, 0, 0, 0, 0, 0, len(self.names[path].data))

    def listdir(self, path: str) -> list[str]:
        return [name[len(path) + 1 :] for name in self.names if name.startswith(path + "/")]

    def mkdir(self, path: str) -> None:
        self.folders.add(path)

    def rename(self, old: str, new: str) -> None:
        self._name(old, new, self.names[old])

    def remove(self, path: str) -> None:
        self._name(path, "", self.names[path])

    def truncate(self, path: str, size: int) -> None:
        def act() -> None:
            del self.names[path].data[size:]

        self._change(act)

    def urandom(self, size: int) -> bytes:
        return random.randbytes(size)

    def fsync(self, inode: _Inode) -> None:
        def act() -> None:
            inode.durable = bytes(inode.data)

        self._change(act)

    def sync_dir(self, path: str) -> None:
        def act() -> None:
            self.durable = dict(self.names)
            self.pending = []

        self._change(act)

    def open(self, path: str, mode: str) -> Any:
        if mode == "rb":
            if path not in self.names:
                raise OSError(2, path)
            return io.BytesIO(bytes(self.names[path].data))
        if path not in self.names:
            self._name("", path, _Inode())
        inode = self.names[path]
        if mode == "wb" and inode.data:
            self._change(inode.data.clear)
        return _File(self, inode)


class _File:
    def __init__(self, disk: Disk, inode: _Inode) -> None:
        self._disk = disk
        self.inode = inode

    def write(self, data: bytes) -> None:
        add = self.inode.data.extend
        self._disk._change(lambda: add(data), lambda: add(data[: len(data) // 2]))

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> Any:
        return self.inode

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "_sink", lambda line: None)
    yield
    for module in (outbox, compat):
        module.__dict__.pop("open", None)


class Life(RuleBasedStateMachine):
    """One device and one receiver that discards doubles as edgeagent/telemetry.py says."""

    LIMITS = (1 << 24, 1 << 24)  # nothing is dropped
    OLDEST = True

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.saved = (outbox.os, compat.os, compat.posix)
        outbox.os = compat.os = compat.posix = self.disk  # type: ignore[assignment]
        outbox.open = compat.open = self.disk.open  # type: ignore[attr-defined]
        self.appended = 0
        self.durable: list[int] = []
        self.volatile: list[int] = []
        self.received: list[int] = []
        self.highest: dict[str, int] = {}
        self.sent: tuple[str, int] = ("", -1)
        self.dropped = 0
        self.boot()

    def boot(self) -> None:
        self.box = outbox.Outbox(PATH, *self.LIMITS, 600, self.OLDEST)
        self.base = self.box.dropped
        self.volatile = []
        self.acked_here = -1

    def guarded(self, work: Any) -> None:
        """Do it; if the device stops in it, start again."""
        try:
            work()
        except Crash:
            self.crash_now()

    def crash_now(self, power: bool | None = None) -> None:
        self.dropped += self.box.dropped - self.base
        self.disk.crash(self.power if power is None else power, self.rng)
        self.boot()

    power = True
    rng = random.Random(0)

    def note_durable(self) -> None:
        if self.box.buffered == 0:
            self.durable += self.volatile
            self.volatile = []

    @rule(count=st.integers(1, 60), size=st.integers(8, 90))
    def append(self, count: int, size: int) -> None:
        def work() -> None:
            for _ in range(count):
                text = b"[%d]" % self.appended
                self.appended += 1
                if self.box.append(text + b" " * (size - len(text))):
                    self.volatile.append(self.appended - 1)
                self.note_durable()

        self.guarded(work)

    @rule()
    def flush(self) -> None:
        def work() -> None:
            assert self.box.flush()
            self.note_durable()

        self.guarded(work)

    @rule(
        times=st.integers(1, 8), size=st.integers(100, 3000), fate=st.sampled_from(["ok", "ok", "ok", "lost", "no-ack"])
    )
    def deliver(self, times: int, size: int, fate: str) -> None:
        def work() -> None:
            for _ in range(times):
                taken = self.box.take(size)
                if not taken:
                    return
                number, count, text = taken
                values = json.loads(b"[" + text + b"]")
                assert len(values) == count
                assert number > self.acked_here, "an acknowledged record was sent again in the same life"
                if fate != "lost":
                    self.receive(self.box.id, number, [value[0] for value in values])
                if fate == "ok":
                    self.acked_here = number + count - 1
                    self.box.ack(number + count)

        self.guarded(work)

    @rule(size=st.integers(100, 3000), count=st.integers(1, 40))
    def append_and_flush_while_in_flight(self, size: int, count: int) -> None:
        def work() -> None:
            taken = self.box.take(size)
            if taken:
                self.receive(self.box.id, taken[0], [value[0] for value in json.loads(b"[" + taken[2] + b"]")])
            for _ in range(count):
                self.appended += 1
                if self.box.append(b"[%d]" % (self.appended - 1)):
                    self.volatile.append(self.appended - 1)
            self.box.flush()
            self.note_durable()
            if taken:
                self.box.ack(taken[0] + taken[1])

        self.guarded(work)

    @rule(power=st.booleans(), seed=st.integers(0, 1 << 30))
    def crash(self, power: bool, seed: int) -> None:
        self.rng = random.Random(seed)
        self.crash_now(power)

    @rule(
        after=st.integers(0, 30),
        mode=st.sampled_from(["before", "torn", "after"]),
        power=st.booleans(),
        seed=st.integers(0, 1 << 30),
    )
    def arm(self, after: int, mode: str, power: bool, seed: int) -> None:
        self.disk.fuse, self.disk.mode = after, mode
        self.power, self.rng = power, random.Random(seed)

    def receive(self, key: str, number: int, values: list[int]) -> None:
        for value in values:
            if number > self.highest.get(key, -1):
                self.highest[key] = number
                self.received.append(value)
            number += 1

    def teardown(self) -> None:
        try:
            self.disk.fuse = -1
            while taken := self.box.take(3000):
                self.receive(self.box.id, taken[0], [value[0] for value in json.loads(b"[" + taken[2] + b"]")])
                self.box.ack(taken[0] + taken[1])
            self.judge()
        finally:
            outbox.os, compat.os, compat.posix = self.saved  # type: ignore[assignment]

    def judge(self) -> None:
        self.dropped += self.box.dropped - self.base
        assert self.received == sorted(set(self.received)), "out of order or twice"
        missing = set(self.durable) - set(self.received)
        assert len(missing) <= self.dropped, f"lost {sorted(missing)[:10]}, {self.dropped} dropped"
        assert len(self.highest) <= 1, "another numbering without a reason"
        assert (self.box.records, self.box.stored, self.box.buffered, self.box.damaged) == (0, 0, 0, 0)
        assert not [name for name in self.disk.names if not name.endswith(("cursor", "cursor.new"))], "a file is left"


class TightLife(Life):
    """Bounds that are reached all the time; the oldest records give way."""

    LIMITS = (16384, 1000)


class FullLife(TightLife):
    """New records are refused."""

    OLDEST = False


@pytest.mark.parametrize("machine", [Life, TightLife, FullLife])
def test_what_was_durable_arrives_in_order_and_once(machine: type[Life]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=150,
            stateful_step_count=30,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_without_bounds_nothing_is_dropped_in_the_model() -> None:
    life = Life()
    try:
        life.append(60, 90)
        life.flush()
        life.arm(3, "torn", True, 1)
        life.append(60, 90)
        assert life.disk.changes > 3 and life.dropped == 0
    finally:
        life.teardown()
