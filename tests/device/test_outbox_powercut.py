# SPDX-License-Identifier: Apache-2.0
"""Power may fail at any flash operation of the outbox (docs/cuts.md); and what a life with it costs the flash."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from hil.cuts.plan import Task
from hil.cuts.run import play
from tests.support import MICROPYTHON, ROOT

PROGRAM = ROOT / "hil" / "cuts" / "board" / "outbox.py"


@pytest.mark.parametrize(("scenario", "parts"), [("outbox-life", 3), ("outbox-tight", 31), ("outbox-full", 31)])
def test_cut_at_a_flash_operation_loses_nothing_durable_and_keeps_the_order(scenario: str, parts: int) -> None:
    found = play(Task(scenario, "cut", 1, parts).members())
    assert found.bad_count == 0, found.bad
    assert found.cases > 150


@pytest.mark.parametrize("scenario", ["outbox-life", "outbox-full"])
def test_storms_of_cuts(scenario: str) -> None:
    found = play(Task(scenario, "storm", 0, 60).members())
    assert found.bad_count == 0, found.bad
    assert found.cuts > found.cases


def test_it_wears_the_flash_no_more_than_its_docstring_says(tmp_path: Path) -> None:
    result = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=16m", str(PROGRAM)],
        cwd=tmp_path,
        env={**os.environ, "MICROPYPATH": f"{ROOT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["append"]["erases"] <= 42 and found["append"]["bytes"] <= 87_000
    assert found["deliver"]["erases"] <= 2 and found["deliver"]["bytes"] <= 8_500
    assert found["online"]["erases"] == 0 and found["online"]["bytes"] <= 512
    assert found["ram_backlog"] <= 4096, "a full queue must not cost RAM"
