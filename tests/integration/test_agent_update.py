# SPDX-License-Identifier: Apache-2.0
"""The agent of a board updates itself over a real site, through its own jobs; bad agents go back and say why."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgeagent
from edgefleet import devices
from edgefleet.artifacts import sign
from edgefleet.artifacts.build import build
from examples.demo.judge import Judge, wait_for
from examples.demo.processes import FleetManager
from tests.integration.rig import Rig
from tests.support import write_files

BOARD = "UNIX_VIRTUAL"
SEED = 20261201
KILLS = 5
HEAP = "160k"  # as the demo's boards; the names of 40 files take their share of it
RATE = 15_000  # bytes a second, where a test needs time in the middle of a download
FACTORY = edgeagent.__version__


class Patient(Rig):
    settings = {"confirm_within": 15}


@pytest.fixture(scope="module")
def rig(fleet: FleetManager, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Patient(fleet, judge, tmp_path_factory.mktemp("rig"), "agent-board", HEAP)
    with rig.switched_on():
        yield rig


def agent(rig: Rig) -> str:
    return str(rig.judge.reported(rig.thing)["agent"])


def wait_agent(rig: Rig, version: str) -> None:
    query = f"thingName:{rig.thing} AND shadow.reported.agent:{version} AND connectivity.connected:true"
    wait_for(lambda: rig.judge.search(query) or None, rig.state, 60)


def publish(rig: Rig, version: str) -> dict[str, Any]:
    """A good agent of another version, as an operator makes it."""
    folder = str(rig.folder / f"agent-{version}")
    run = rig.fleet.run
    run("artifact", "build", "--type", "agent", "--board", BOARD, "--version", version, "--out", folder)
    run("artifact", "sign", folder, "--key", str(rig.key))
    document: dict[str, Any] = json.loads(run("artifact", "publish", folder))
    return document


def publish_bad(rig: Rig, version: str, spoil: Callable[[Path], None]) -> dict[str, Any]:
    """spoil: changes the agent's files in a folder before they are signed."""
    source = rig.folder / f"bad-{version}"
    write_files(source, devices.agent_bytecode(BOARD, devices.OPTIMISE, version))
    spoil(source / "edgeagent")
    made = build(source, name="edgeagent", version=version, boards=[BOARD], type="agent")
    sign.sign(made, rig.key)
    made.write(rig.folder / f"agent-{version}")
    document: dict[str, Any] = json.loads(rig.fleet.run("artifact", "publish", str(rig.folder / f"agent-{version}")))
    return document


def test_board_updates_its_agent_and_reports_the_new_one(rig: Rig) -> None:
    assert agent(rig) == FACTORY
    rig.create_job("agent-1", publish(rig, "1.0.1"))
    assert rig.outcome("agent-1") == ("SUCCEEDED", {"version": "1.0.1", "previous": FACTORY}), rig.state()
    wait_agent(rig, "1.0.1")
    rig.wait_running("1.0.0")


def test_agent_before_is_replaced_by_the_next_through_kills_at_random_moments(rig: Rig) -> None:
    before = agent(rig)
    chance = random.Random(SEED)
    rig.create_job("agent-2", {**publish(rig, "1.0.2"), "rate": RATE})
    for n in range(KILLS):
        wait_for(lambda least=15 * n + 10: rig.percent("agent-2") >= least or None, rig.state, 60)  # type: ignore[misc]
        threading.Event().wait(chance.random())  # the moment of the cut is the subject of the test
        rig.board.kill()
    status, details = rig.outcome("agent-2", 180)
    assert (status, details) == ("SUCCEEDED", {"version": "1.0.2", "previous": before}), f"seed {SEED}: {rig.state()}"
    wait_agent(rig, "1.0.2")


def hollow(folder: Path) -> None:
    (folder / "trampoline.mpy").unlink()


def foreign(folder: Path) -> None:
    """Bytecode of a format that this firmware does not load."""
    path = folder / "__init__.mpy"
    path.write_bytes(b"M\x63" + path.read_bytes()[2:])


def deaf(folder: Path) -> None:
    """Without what it needs to connect."""
    (folder / "onboard.mpy").unlink()


@pytest.mark.parametrize(
    ("version", "spoil", "reason"),
    [
        ("1.1.0", hollow, "rolled-back: ImportError: no module named 'edgeagent.trampoline'"),
        ("1.1.1", foreign, "rolled-back: ValueError: incompatible .mpy file"),
        ("1.1.2", deaf, "rolled-back: not confirmed within 15 s, no connection"),
    ],
    ids=["no trampoline", "bytecode of another format", "cannot connect"],
)
def test_bad_agent_goes_back_to_the_one_before(
    rig: Rig, version: str, spoil: Callable[[Path], None], reason: str
) -> None:
    before = agent(rig)
    job = f"agent-bad-{version.replace('.', '-')}"
    rig.create_job(job, publish_bad(rig, version, spoil))
    status, details = rig.outcome(job, 120)
    assert status == "FAILED"
    assert details["reason"].startswith(reason), rig.state()
    wait_agent(rig, before)
    rig.wait_running("1.0.0")


def test_application_is_updated_under_the_new_agent(rig: Rig) -> None:
    rig.create_job("app-2", rig.publish("2.0.0"))
    assert rig.outcome("app-2")[0] == "SUCCEEDED", rig.state()
    rig.wait_running("2.0.0")


def test_crash_of_the_application_in_the_trial_of_an_agent_ends_the_trial(rig: Rig) -> None:
    before = agent(rig)

    def without_compat(folder: Path) -> None:
        path = folder / "__init__.mpy"
        path.write_bytes(path.read_bytes().replace(b"compat", b"combat"))

    rig.create_job("agent-strange", publish_bad(rig, "1.2.0", without_compat))
    status, details = rig.outcome("agent-strange", 120)
    assert status == "FAILED", rig.state()
    assert details["reason"].startswith("rolled-back: ImportError: no module named 'edgeagent.compat'"), details
    wait_agent(rig, before)
    rig.wait_running("2.0.0")
