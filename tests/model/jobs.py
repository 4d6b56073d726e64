# SPDX-License-Identifier: Apache-2.0
"""Many schedules of service, device and faults: `python -m tests.model.jobs --schedules 100000 --jobs 2`.

A failing one prints its seed; `--seed N -v` replays it exactly, with everything that happens.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import sys
import time
from collections import Counter
from typing import Any

from tests.model.plan import draw
from tests.model.schedule import Schedule, failure, shrink
from tests.model.virtual import Violation

_CHUNK = 250


def run_chunk(first: int) -> tuple[int, list[tuple[int, str]], Counter[str], int, int]:
    """(schedules, failures, terminal statuses and faults, boots, requests) of the seeds from `first` on."""
    failures: list[tuple[int, str]] = []
    seen: Counter[str] = Counter()
    boots = requests = 0
    for seed in range(first, first + _CHUNK):
        schedule = Schedule(draw(seed))
        try:
            schedule.run()
        except Violation as wrong:
            failures.append((seed, str(wrong)))
        seen.update(record.status for record in schedule.service.records.values() if record.deleted is None)
        boots += schedule.device.boots
        requests += len(schedule.network.requests)
    gc.collect()
    return _CHUNK, failures, seen, boots, requests


def many(schedules: int, first: int, processes: int) -> int:
    """Run them; the number of failures."""
    begun = time.monotonic()
    done = boots = requests = 0
    failures: list[tuple[int, str]] = []
    seen: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(processes, gc.freeze) as pool:
        for count, failed, statuses, some_boots, some in pool.imap_unordered(
            run_chunk, range(first, first + schedules, _CHUNK)
        ):
            done += count
            boots += some_boots
            requests += some
            seen += statuses
            failures += failed
            for seed, problem in failed[:3] if len(failures) < 30 else ():
                print(f"\nseed {seed}: {problem}\n  replay: python -m tests.model.jobs --seed {seed} -v")
            speed = done / (time.monotonic() - begun)
            print(f"\r{done} of {schedules} schedules, {speed:.0f}/s, {len(failures)} violations ", end="", flush=True)
    print(f"\n{boots} boots, {requests} requests, executions: {dict(sorted(seen.items()))}")
    print(f"{done} schedules in {time.monotonic() - begun:.0f} s, {len(failures)} violations")
    return len(failures)


def one(seed: int, verbose: bool) -> int:
    """Replay one schedule; if it fails, say what is enough to make it fail."""
    plan = draw(seed)
    problem = failure(plan, print if verbose else None)
    if not problem:
        print(f"seed {seed}: no violation")
        return 0
    print(f"seed {seed}: {problem}\nThis is enough for it:")
    small: dict[str, Any] = shrink(plan)
    for part in ("jobs", "acts", "faults"):
        for entry in small[part]:
            print(f"  {part}: {json.dumps(entry)[:400]}")
    return 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000, help=f"how many (in steps of {_CHUNK})")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("-v", "--verbose", action="store_true", help="with a trace")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return one(options.seed, options.verbose)
    return min(1, many(options.schedules, options.first, options.jobs))


if __name__ == "__main__":
    sys.exit(main())
