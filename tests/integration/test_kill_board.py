# SPDX-License-Identifier: Apache-2.0
"""Power lost at any moment of an update: the board boots, and the job still ends right, exactly once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from tests.integration.rig import Rig

SEED = 20261123
MODES = ("before", "torn", "after")
# An update of the demo application takes about 150 flash operations from power-on to the confirmed boot.
FUSES = [f"{random.Random(SEED + n).randrange(160)}:{MODES[n % 3]}" for n in range(9)]
DELAYS_MS = [random.Random(SEED - n).randrange(100, 3000) for n in range(4)]


@pytest.fixture(scope="module")
def rig(fleet: FleetManager, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(fleet, judge, tmp_path_factory.mktemp("rig"), "cut-board")
    with rig.switched_on():
        yield rig


@pytest.fixture
def versions(rig: Rig) -> tuple[str, str]:
    """(running, other): the board moves back and forth between two good releases."""
    running = str(rig.judge.reported(rig.thing)["firmware"])
    return running, "2.0.0" if running == "1.0.0" else "1.0.0"


@pytest.mark.parametrize("fuse", FUSES)
def test_power_cut_at_a_flash_operation_of_the_update(rig: Rig, versions: tuple[str, str], fuse: str) -> None:
    job = f"fuse-{fuse.replace(':', '-')}"
    document = rig.publish(versions[1])
    rig.board.power_off()
    rig.create_job(job, document)
    rig.board.power_on(cut=fuse)
    status, details = rig.outcome(job)
    assert status == "SUCCEEDED", (details, rig.state())
    rig.wait_running(versions[1])


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
def test_kill_9_at_a_moment_of_the_update(rig: Rig, versions: tuple[str, str], delay_ms: int) -> None:
    job = f"kill-{delay_ms}"
    rig.create_job(job, rig.publish(versions[1]))
    time.sleep(delay_ms / 1000)  # the moment of the cut is the subject of the test
    rig.board.kill()
    status, details = rig.outcome(job)
    assert status == "SUCCEEDED", (details, rig.state())
    rig.wait_running(versions[1])


def test_a_bad_release_rolls_back_even_if_power_fails_in_the_trial(rig: Rig, versions: tuple[str, str]) -> None:
    job = "bad-and-cut"
    rig.create_job(job, rig.publish("3.0.0"))
    boots = len(rig.board.resets)
    deadline = time.monotonic() + 60
    while len(rig.board.resets) == boots:
        assert time.monotonic() < deadline, rig.state()
        time.sleep(0.01)
    rig.board.kill()
    status, details = rig.outcome(job)
    assert status == "FAILED", details
    assert "fuel_injection" in details["reason"] or "interrupted" in details["reason"], details
    rig.wait_running(versions[0])
