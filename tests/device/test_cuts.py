# SPDX-License-Identifier: Apache-2.0
"""A sample of the power cuts of docs/cuts.md, and proof that the harness sees what it has to see."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hil.cuts import mutants, plan
from hil.cuts.run import ROOT, Tally, play, play_all
from hil.virtual_board import interpreter

# Two flashes of the same content are read in the same way, one by each program; digests tell contents apart.
BOTH = """
from array import array
from hil.cuts.board import flash
made = flash.Flash(bytearray(flash.chance("x", 3 * 4096)))
plain = flash.Flash(bytearray(made.data))
for n in range(300):
    size = 32 << flash.number("s%d" % n, 4)
    at = flash.number("a%d" % n, (4096 - size) // 32) * 32
    block = flash.number("b%d" % n, 3)
    one, two = bytearray(size), bytearray(size)
    assert made.readblocks(block, one, at) == flash.readblocks(plain, block, two, at) == 0
    assert one == two == made.data[block * 4096 + at : block * 4096 + at + size]
assert bytes(made.read_first()) == bytes(plain.read_first())
assert len(made.read_first()) > 100
cells = array("H", range(0, 300, 7))
seen = set()
for bit in range(8 * 32):
    other = bytearray(made.data)
    other[cells[9] * 32 + bit // 8] ^= 1 << bit % 8
    seen.add(flash.digest(other, cells, len(cells)))
seen.add(flash.digest(made.data, cells, len(cells)))
assert len(seen) == 257
made.dead = plain.dead = True
assert made.readblocks(0, one, 0) == flash.readblocks(plain, 0, two, 0) == -5
"""


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
    tally = play(plan.control(strategy).members())
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


def test_a_bad_storm_is_replayed_by_its_id_without_its_neighbours() -> None:
    tally = play({"scenario": "delete-then-rename", "kind": "storm", "part": 300, "parts": 364})
    assert tally.bad
    for case in tally.bad:
        assert play({"replay": case[0]}).bad == [case]


def test_what_is_remembered_hides_no_bad_state() -> None:
    task = {"scenario": "delete-then-rename", "kind": "cut", "part": 1, "parts": 3}
    remembered, played = play(task), play({**task, "nodes": -1})
    assert played.bad_count > 10
    assert (remembered.cases, remembered.bad_count, remembered.bad) == (played.cases, played.bad_count, played.bad)
    assert remembered.states < played.states


def test_machine_code_and_python_read_the_same(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(BOTH)
    environment = {**os.environ, "MICROPYPATH": f"{ROOT}:.frozen"}
    subprocess.run([interpreter(), program], env=environment, check=True, timeout=60)


def test_misread_files_lead_to_other_states_but_to_no_bad_one() -> None:
    tally = play(plan.Task("trust", "misread").members())
    assert not tally.bad_count, told(tally)
    assert tally.states > 5, "some of them have to change what happens"


def test_a_second_cut_is_replayed_by_its_id() -> None:
    assert not play({"replay": "update/40.bits/9.half"}).bad


def test_the_flash_made_from_the_log_is_that_of_a_device_that_was_really_cut() -> None:
    tally = play({"scenario": "update", "kind": "alike", "part": 2, "parts": 11})
    assert not tally.bad_count, told(tally)
    assert tally.cases > 40
