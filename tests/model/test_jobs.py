# SPDX-License-Identifier: Apache-2.0
"""Some hundred of the schedules that `make model` runs 100,000 of, and proof that they would find a defect."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.model.mutants import MUTANTS, Patch, applied
from tests.model.plan import draw
from tests.model.schedule import failure, shrink
from tests.support import ROOT

# Schedules that show what is too rare for the first few hundred.
_RARE = {
    "mistakes_an_id_that_is_used_again": [15006, 11678, 12651],
    "never_asks_whether_it_is_still_ours": [1451, 15006],
    "updates_name_no_execution": [187],
}
_HUNT = 600


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> Iterator[None]:
    """The MQTT client collects garbage at each failed connect: not that of all of pytest."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("part", range(5))
def test_every_execution_gets_one_terminal_status_and_it_is_true(part: int) -> None:
    for seed in range(100 * part, 100 * part + 100):
        problem = failure(draw(seed))
        assert problem is None, f"{problem}\nreplay: python -m tests.model.jobs --seed {seed} -v"


@pytest.mark.parametrize(
    "seed",
    [
        1451,  # a job deleted, and its id used again, while the outcome of the first waits for the link
        2757,  # the same while the device has no power
        30956,  # the same, and the handler ends while the runner asks whether the job is still its own
        119175,  # the same while answers are lost
        121218,  # a late answer that is too large, for another job than the one at hand
    ],
)
def test_what_was_found_once_stays_away(seed: int) -> None:
    assert failure(draw(seed)) is None


@pytest.mark.parametrize("defect", MUTANTS, ids=lambda one: one.__name__)
def test_a_defect_is_found(defect: object) -> None:
    patch: Patch = defect()  # type: ignore[operator]
    name: str = defect.__name__  # type: ignore[attr-defined]
    with applied(patch):
        assert any(failure(draw(seed)) for seed in [*_RARE.get(name, ()), *range(_HUNT)])


def test_a_failing_schedule_is_made_smaller() -> None:
    with applied(next(one for one in MUTANTS if one.__name__ == "reboots_without_rebooting")()):
        seed = next(seed for seed in range(100) if failure(draw(seed)))
        small = shrink(draw(seed))
        assert failure(small)
    assert (len(small["jobs"]), small["faults"]) == (1, [])


def _trace_hash(hash_seed: str) -> str:
    code = (
        "from tests.model.plan import draw; from tests.model.schedule import failure\n"
        "for seed in range(15): failure(draw(seed), print)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert result.stdout
    return hashlib.sha256(result.stdout).hexdigest()


def test_a_seed_replays_exactly_in_another_process() -> None:
    assert _trace_hash("1") == _trace_hash("2")
