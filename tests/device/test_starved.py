# SPDX-License-Identifier: Apache-2.0
"""An agent without the memory to connect: it restarts the device, which counts for a job at hand, and recovers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagent import agent as agent_module
from edgeagent.errors import JobFailed
from edgeagent.jobs.runner import Runner
from edgefleet import devices
from tests.device.ground import Ground
from tests.device.test_agent import _hasty, make, on, running, until_restart
from tests.device.test_agent_micropython import Board, on_board
from tests.support import MICROPYTHON

assert _hasty  # a fixture

# A job that closes the link, as a download by HTTPS does, fills the heap, and wants the link back. What it leaves is
# enough for the agent, but has no room in one piece for the buffers of TLS.
HOG = """
import asyncio
from edgeagent import Agent
import edgeagent

edgeagent.Backoff.next = lambda self: 0.05
agent = Agent.from_file("agent.json", version="1.0.0")

@agent.job("hog", resume=True)
async def hog(job):
    print("hog", job.resumed, job.data)
    await agent.client.close()
    keep = []
    try:
        while True:
            keep.append(bytearray(500))
    except MemoryError:
        for n in range(0, len(keep), 4):
            keep[n] = None
    while agent.connected.is_set():
        await asyncio.sleep(0.05)
    await agent.connected.wait()

@agent.job("light")
async def light(job):
    return {"n": 1}

agent.run()
"""
# How MicroPython reads documents that are nested deeply: with a stack on the heap, so lack of memory is MemoryError,
# and nothing is a RuntimeError there.
NESTED = """
import json
for opening, closing in (("[", "]"), ('{"a":', "}")):
    for depth in (100, 1000, 10000, 100000):
        try:
            json.loads(opening * depth + "0" + closing * depth)
            print("read")
        except Exception as error:
            print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def board_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lib") / "agent"
    devices.write_agent(folder, "UNIX_VIRTUAL")
    return folder


class HungryBoard(Board):
    def __init__(self, site: Ground, thing: str, library: Path) -> None:
        super().__init__(site, thing, library)
        (self.folder / "main.py").write_text(HOG)


def test_a_job_beside_which_tls_never_fits_ends_and_the_next_one_is_done(
    tmp_path: Path, board_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.device.test_agent_micropython.Board", HungryBoard)

    async def scenario(site: Ground, board: Board) -> None:
        site.job("hog", "pump", {"operation": "hog"})
        site.job("light", "pump", {"operation": "light"})
        status, details = await site.outcome("hog", "pump")
        assert (status, details.get("reason")) == ("FAILED", "out of memory"), board.output.decode()
        assert await site.outcome("light", "pump") == ("SUCCEEDED", {"n": "1"})
        assert board.boots == 5
        assert board.output.count(b"hog False") == 1
        assert board.output.count(b"hog True") == 3

    on_board(tmp_path, board_files, scenario)


def starving(monkeypatch: pytest.MonkeyPatch, job: Any) -> None:
    """Run an agent whose sessions end for lack of memory, to the restart."""

    async def session() -> None:
        raise MemoryError

    until_restart(monkeypatch, session, job and SimpleNamespace(_job=job))


class Counting:
    """As a JobContext. problem: what is raised when it is to count."""

    def __init__(self, problem: BaseException | None = None) -> None:
        self.problem = problem
        self.count = 0

    def starved(self) -> None:
        self.count += 1
        if self.problem:
            raise self.problem


@pytest.mark.parametrize("problem", [None, JobFailed("journal: OSError: 28"), MemoryError()])
def test_a_restart_is_counted_once_and_comes_even_if_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch, problem: BaseException | None
) -> None:
    job = Counting(problem)
    starving(monkeypatch, job)
    assert job.count == 1


def test_it_restarts_without_a_job_and_without_a_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    starving(monkeypatch, None)


def test_no_memory_in_the_middle_of_the_first_session_is_made_good_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def short(agent: Any) -> Runner:
        made.append(agent.client)
        if len(made) < 3:
            raise MemoryError
        return Runner(agent)

    monkeypatch.setattr(agent_module, "Runner", short)

    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        agent.job("light")(light)
        async with running(agent):
            site.job("j", "pump", {"operation": "light"})
            assert await site.outcome("j", "pump") == ("SUCCEEDED", {"n": "1"})
        assert len(made) == 3

    async def light(job: Any) -> Any:
        return {"n": 1}

    on(tmp_path, scenario)


def said(program: str, heap: str) -> list[str]:
    command = [MICROPYTHON, "-X", f"heapsize={heap}", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()


def test_json_of_micropython_fails_only_for_lack_of_memory() -> None:
    assert said(NESTED, "128m") == ["read"] * 8
    small = said(NESTED, "64k")
    assert set(small) == {"read", "MemoryError"}
    assert small[0] == "read"
