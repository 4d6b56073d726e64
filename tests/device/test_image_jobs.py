# SPDX-License-Identifier: Apache-2.0
"""Two `image` jobs one after the other. RAUC is a stand-in here, which takes its time exactly where a test wants it to;
the real one is in test_rauc.py.
"""

from __future__ import annotations

import asyncio
import copy
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagent import image as parts
from edgeagent.errors import UpdateError
from edgeagent.jobs import image
from edgeagent.ota import kinds, ranges
from edgeagent.ports.linux.rauc import Bundle, System

STATUS: dict[str, Any] = {
    "compatible": "G",
    "boot_primary": "rootfs.0",
    "slots": [
        {"rootfs.0": {"class": "rootfs", "state": "booted", "boot_status": "good"}},
        {"rootfs.1": {"class": "rootfs", "state": "inactive", "boot_status": "good"}},
    ],
}


class SlowRauc:
    """As rauc.Rauc. Installing never ends; marking waits for `go`."""

    def __init__(self) -> None:
        self.answer = copy.deepcopy(STATUS)
        self.installing = asyncio.Event()
        self.marking = threading.Event()
        self.go = threading.Event()

    async def idle(self, seconds: float = 0) -> System:
        return System(copy.deepcopy(self.answer))

    status = idle

    async def info(self, path: str) -> Bundle:
        return Bundle("G", "2.0.0", {"rootfs": "aa"})

    def mark(self, state: str, slot: str) -> None:
        self.marking.set()
        assert self.go.wait(10)

    async def install(self, path: str, tick: Any) -> None:
        self.answer["boot_primary"] = "rootfs.1"
        self.installing.set()
        await asyncio.Event().wait()


class Job:
    revoked = False
    execution = 1
    queued = 1

    def __init__(self, agent: Any, name: str, path: Path) -> None:
        self.agent = agent
        self.id = name
        self.data: dict[str, Any] = {}
        self.document = {"operation": "image", "url": str(path), "size": 10, "version": "2.0.0"}

    async def progress(self, *_: Any, **details: Any) -> bool:
        return True

    def checkpoint(self, **data: Any) -> None:
        self.data.update(data)


def part_of(tmp_path: Path, rauc: Any, tasks: list[asyncio.Task[Any]]) -> parts.Part:
    """Of an agent of which only this is there. tasks: gets what it begins."""
    agent = SimpleNamespace(
        port=SimpleNamespace(slots_dir=str(tmp_path / "slots"), state_dir=str(tmp_path)),
        config=SimpleNamespace(image={"folder": str(tmp_path / "bundles")}, confirm_within=60, update_window=None),
        handlers=SimpleNamespace(register=lambda *_: None),
        hooks={},
        services=[],
        _begin=lambda function: tasks.append(asyncio.create_task(function())),
    )
    part = parts.Part(agent)
    part.rauc = rauc
    agent.part = lambda _: part
    return part


@pytest.fixture
def path(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundles" / "x.raucb"
    bundle.parent.mkdir()
    bundle.write_bytes(bytes(10))
    return bundle


def test_a_job_begins_when_a_cancelled_one_has_been_undone(path: Path, tmp_path: Path) -> None:
    async def story() -> None:
        tasks: list[asyncio.Task[Any]] = []
        rauc: Any = SlowRauc()
        part = part_of(tmp_path, rauc, tasks)
        agent = part.agent

        first = Job(agent, "first", path)
        task = asyncio.create_task(image.run(first))
        await rauc.installing.wait()
        rauc.installing.clear()
        first.revoked = True
        task.cancel()
        await asyncio.wait([task])
        later = asyncio.create_task(image.run(Job(agent, "later", path)))
        assert await asyncio.to_thread(rauc.marking.wait, 10)
        rauc.answer["boot_primary"] = "rootfs.0"
        rauc.go.set()
        await asyncio.wait([later, asyncio.create_task(rauc.installing.wait())], return_when=asyncio.FIRST_COMPLETED)
        assert not later.done(), later.exception()
        assert (part.status()["state"], part.status()["job"]) == ("trial", kinds.name("later", 1, 1))
        later.cancel()
        await asyncio.wait([later, *tasks])

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_rauc_that_does_not_answer_in_the_old_system_has_nothing_marked_bad(path: Path, tmp_path: Path) -> None:
    class Silent(SlowRauc):
        """Answers again when somebody lets it."""

        silent = False
        marked: list[tuple[str, str]] = []

        async def idle(self, seconds: float = 0) -> System:
            if self.silent:
                raise UpdateError("rauc", "no answer")
            return await super().idle(seconds)

        def mark(self, state: str, slot: str) -> None:
            self.marked.append((state, slot))

        async def restart(self, seconds: float) -> None:
            self.marked.append(("restart", ""))

    async def story() -> None:
        tasks: list[asyncio.Task[Any]] = []
        rauc: Any = Silent()
        part = part_of(tmp_path, rauc, tasks)
        task = asyncio.create_task(image.run(Job(part.agent, "first", path)))
        await rauc.installing.wait()
        task.cancel()
        await asyncio.wait([task])
        rauc.silent = True
        await part.give_up("no")
        with pytest.raises(UpdateError, match="no answer"):
            await tasks.pop()  # which the agent begins again and again
        assert (rauc.marked, part.status()["settled"]) == ([], False)
        rauc.silent = False
        await part.settle()
        assert (rauc.marked, part.status()["settled"]) == ([("bad", "rootfs.1"), ("active", "rootfs.0")], True)

    asyncio.run(asyncio.wait_for(story(), 30))


@pytest.mark.parametrize("pause", [0.0, 0.02], ids=["fast", "slow"])
def test_all_but_the_last_mebibyte_of_a_response_is_durable_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    """From a server without ranges: one request brings all. pause: of the disk, for each fsync."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    size = 8 << 20
    durable = most = 0
    on_loop: list[bool] = []
    fsync = os.fsync

    def sync(number: int) -> None:
        nonlocal durable, most
        on_loop.append(threading.current_thread() is threading.main_thread())
        there = os.fstat(number).st_size
        fsync(number)
        time.sleep(pause)
        most = max(most, os.fstat(number).st_size - durable)
        durable = there

    async def fetch(agent: Any, url: str, start: int, size: int, sink: Any, have: bytearray, tick: Any, _: int) -> None:
        for number in range(size // 4096):
            sink(number, bytes(4096))
            (file,) = bundle.iterdir()
            assert file.stat().st_size == (number + 1) * 4096, "a kill would cost more than this block"
            await asyncio.sleep(0)
        await tick(100)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(ranges, "fetch", fetch)
    monkeypatch.setattr(image, "sync_dir", lambda _: None)
    job = Job(SimpleNamespace(), "j", bundle)
    job.document = {"operation": "image", "url": "https://a/b", "size": size, "version": "2"}
    path = asyncio.run(asyncio.wait_for(image._download(job, str(bundle)), 60))
    assert Path(path).stat().st_size == durable == size
    assert most <= 1 << 20
    assert len(on_loop) >= size >> 20
    assert not any(on_loop)
