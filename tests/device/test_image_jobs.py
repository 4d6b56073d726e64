# SPDX-License-Identifier: Apache-2.0
"""Two `image` jobs one after the other. RAUC is a stand-in here, which takes its time exactly where a test wants it to;
the real one is in test_rauc.py.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagent import image as parts
from edgeagent.jobs import image
from edgeagent.ota import kinds
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundles" / "x.raucb"
    bundle.parent.mkdir()
    bundle.write_bytes(bytes(10))
    return bundle


def test_a_job_begins_when_a_cancelled_one_has_been_undone(path: Path, tmp_path: Path) -> None:
    async def story() -> None:
        tasks: list[asyncio.Task[Any]] = []
        agent = SimpleNamespace(
            port=SimpleNamespace(slots_dir=str(tmp_path / "slots"), state_dir=str(tmp_path)),
            config=SimpleNamespace(image={"folder": str(path.parent)}, confirm_within=60, update_window=None),
            handlers=SimpleNamespace(register=lambda *_: None),
            hooks={},
            services=[],
            _begin=lambda function: tasks.append(asyncio.create_task(function())),
        )
        part = parts.Part(agent)
        rauc: Any = SlowRauc()
        part.rauc = rauc
        agent.part = lambda _: part

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
