# SPDX-License-Identifier: Apache-2.0
"""A sample of the power cuts of docs/cuts.md, and proof that the harness sees what it has to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from hil.cuts import mutants, plan
from hil.cuts.run import Tally, play, play_all


def told(tally: Tally) -> str:
    return "".join(f"\n{problem}\n    python -m hil.cuts --replay '{case}'" for case, problem in tally.bad[:5])


def test_no_cut_of_the_sample_breaks_a_promise() -> None:
    found = play_all(plan.sample(), 2, lambda cases: None, lambda task, tally: None)
    bad = [told(tally) for tally in found.values() if tally.bad_count]
    assert not bad, "".join(bad)
    assert sum(tally.cases for tally in found.values()) > 1000


@pytest.mark.parametrize("scenario", ["update", "identity"])
def test_what_linux_leaves_of_files_that_were_not_synced(scenario: str) -> None:
    tally = play(plan.Task(scenario, "linux").members())
    assert not tally.bad_count, told(tally)
    assert tally.states > 50


@pytest.mark.parametrize("strategy", plan.CONTROLS)
def test_careless_strategies_show_bad_states(strategy: str) -> None:
    parts = 9 if strategy.startswith("outbox") else 1
    tally = play(plan.Task(strategy, "cut", 0, parts).members())
    assert tally.bad_count >= 10
    assert not tally.bad[0][0].endswith("/clean"), "without a cut it has to work"


@pytest.mark.parametrize("name", mutants.SAMPLE)
def test_fault_in_the_agent_is_found(name: str) -> None:
    assert mutants.hunt_one(name)[1]


def test_every_mutant_fits_the_agent_as_it_is(tmp_path: Path) -> None:
    assert len(mutants.MUTANTS) >= 40
    for mutant in mutants.MUTANTS:
        mutants.overlay(mutant, tmp_path / mutant.name)


def test_a_bad_case_is_replayed_by_its_id() -> None:
    case = play(plan.Task("in-place", "cut", limit=1).members()).bad[0]
    assert play({"replay": case[0]}).bad == [case]


def test_a_second_cut_is_replayed_by_its_id() -> None:
    assert not play({"replay": "update/40.bits/9.half"}).bad


def test_the_flash_made_from_the_log_is_that_of_a_device_that_was_really_cut() -> None:
    tally = play({"scenario": "update", "kind": "alike", "part": 2, "parts": 11})
    assert not tally.bad_count, told(tally)
    assert tally.cases > 40
