# SPDX-License-Identifier: Apache-2.0
"""Power may fail at any flash operation of the outbox: swept on the real littlefs (outbox_powercut_program.py)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import MICROPYTHON, ROOT

PROGRAM = ROOT / "tests" / "device" / "outbox_powercut_program.py"


def play(folder: Path, *arguments: str) -> dict[str, Any]:
    result = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=16m", str(PROGRAM), *arguments],
        cwd=folder,
        env={**os.environ, "MICROPYPATH": f"{ROOT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_cut_at_every_flash_operation_loses_nothing_durable_and_keeps_the_order(tmp_path: Path) -> None:
    found = play(tmp_path, "sweep", "life", "1")
    assert found["bad_count"] == 0, found["bad"]
    assert found["cases"] == 3 * found["operations"] > 500
    assert found["dropped"] == 0


@pytest.mark.parametrize("scenario", ["tight", "full"])
def test_cuts_while_the_queue_or_the_flash_is_full(tmp_path: Path, scenario: str) -> None:
    found = play(tmp_path, "sweep", scenario, "11")
    assert found["bad_count"] == 0, found["bad"]
    assert found["dropped"] > 50


@pytest.mark.parametrize("scenario", ["life", "full"])
def test_storms_of_cuts(tmp_path: Path, scenario: str) -> None:
    found = play(tmp_path, "storm", scenario, "60")
    assert found["bad_count"] == 0, found["bad"]
    assert found["cuts"] > found["cases"]


def test_the_sweep_finds_what_is_wrong_with_numbers_that_are_not_set_apart(tmp_path: Path) -> None:
    assert play(tmp_path, "sweep", "careless", "5")["bad_count"] > 20


def test_it_wears_the_flash_no_more_than_its_docstring_says(tmp_path: Path) -> None:
    found = play(tmp_path, "wear")
    assert found["append"]["erases"] <= 42 and found["append"]["bytes"] <= 87_000
    assert found["deliver"]["erases"] <= 2 and found["deliver"]["bytes"] <= 8_500
    assert found["online"]["erases"] == 0 and found["online"]["bytes"] <= 512
    assert found["ram_backlog"] <= 4096, "a full queue must not cost RAM"
