# SPDX-License-Identifier: Apache-2.0
"""Power may fail at any flash operation of an update: swept on MicroPython's own littlefs (powercut_program.py)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import MICROPYTHON, ROOT

PROGRAM = ROOT / "tests" / "device" / "powercut_program.py"


def sweep(folder: Path, *arguments: str) -> dict[str, Any]:
    result = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=8m", str(PROGRAM), *arguments],
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


@pytest.mark.parametrize("scenario", ["update", "rollback"])
def test_cut_at_every_flash_operation_boots_old_or_new_and_ends_right(tmp_path: Path, scenario: str) -> None:
    found = sweep(tmp_path, scenario)
    assert found["bad_count"] == 0, found["bad"]
    assert found["cases"] == 3 * found["operations"] > 300
    assert found["old"] > 0 and found["new"] > 0


def test_cut_in_a_long_download_costs_at_most_64_kib(tmp_path: Path) -> None:
    found = sweep(tmp_path, "large", "17")
    assert found["bad_count"] == 0, found["bad"]
    assert 0 < found["refetched"] * 4096 <= 65536


def test_storms_of_cuts_end_in_one_outcome(tmp_path: Path) -> None:
    found = sweep(tmp_path, "storm", "120")
    assert found["bad_count"] == 0, found["bad"]
    assert found["cuts"] > found["cases"]


@pytest.mark.parametrize("strategy", ["pointer-first", "in-place"])
def test_the_sweep_finds_what_is_wrong_with_simpler_updaters(tmp_path: Path, strategy: str) -> None:
    assert sweep(tmp_path, strategy)["bad_count"] > 20
