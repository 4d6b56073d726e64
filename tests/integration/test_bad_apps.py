# SPDX-License-Identifier: Apache-2.0
"""Bad applications: a sample of them on trial on a board, and some as updates of a real site, with a good one after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from hil.virtual_board import VirtualBoard
from tests.integration.bad_apps import files_of, play, status
from tests.integration.rig import Rig
from tests.support import write_files

# Each for a way of its own back; `make bad-apps` plays all.
SAMPLE = (
    "breaks_the_configuration",
    "busy_loop_in_a_task",
    "confirms_itself_and_hangs",
    "crash_at_import",
    "deletes_the_other_slot",
    "eats_memory_in_small_pieces",
    "exits",
    "feeds_the_watchdog_in_a_timer",
    "fills_the_flash_and_hangs",
    "never_connects",
    "replaces_open",
    "shadows_the_agent",
)
# What it does, as a job reports it.
DELIVERED = {
    "fills_the_flash": "RuntimeError: flash is full|ENOSPC|cannot be counted",
    "deletes_the_state": "left no trace",
    "changes_the_configuration": "not confirmed within",
    "feeds_the_watchdog": "did not end",
}


@pytest.mark.parametrize("name", SAMPLE)
def test_the_board_comes_back_within_three_boots_and_says_why(name: str, tmp_path: Path) -> None:
    outcome = play(name, tmp_path)
    assert not outcome.problem, outcome


class Site(Rig):
    """A board whose trials take ten seconds, and its releases."""

    settings = {"confirm_within": 10}

    def add_bad(self, name: str) -> str:
        """A release of one bad application; its version."""
        version = f"9.{list(DELIVERED).index(name)}.0"
        source = self.folder / f"source-{version}"
        write_files(source, files_of(name))
        self._release(source, version)
        return version


@pytest.fixture
def site(fleet: FleetManager, judge: Judge, folder: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    one = Site(fleet, judge, folder, "bad-" + request.node.callspec.id.replace("_", "-"), heap="160k")
    with one.switched_on():
        yield one


@pytest.mark.parametrize("name", DELIVERED)
def test_as_an_update_it_ends_its_job_with_the_reason_and_a_good_update_follows(site: Site, name: str) -> None:
    site.create_job(site.thing + "-1", site.publish(site.add_bad(name)))
    outcome, details = site.outcome(site.thing + "-1", 120)
    assert outcome == "FAILED", (details, site.state())
    assert details["reason"].startswith("rolled-back: "), details
    assert any(part in details["reason"] for part in DELIVERED[name].split("|")), details
    site.wait_running("1.0.0")
    site.create_job(site.thing + "-2", site.publish("2.0.0"))
    outcome, details = site.outcome(site.thing + "-2")
    if name == "fills_the_flash":  # what it has left there is data, which no update touches
        assert outcome == "FAILED", details
        assert details["reason"].split(":")[0] in ("storage", "space"), details
        site.wait_running("1.0.0")
        return
    assert outcome == "SUCCEEDED", (details, site.state())
    site.wait_running("2.0.0")


def test_the_state_of_a_board_is_read_from_its_flash(tmp_path: Path) -> None:
    (tmp_path / "files" / "slots").mkdir(parents=True)
    board = VirtualBoard(tmp_path / "board", flash_kib=128)
    board.flash(tmp_path / "files")
    assert status(board) == {}
