# SPDX-License-Identifier: Apache-2.0
"""Many jobs through one agent, and what is left of them in memory: `python -m tests.model.soak_jobs --jobs 10000`.

On CPython: runner, MQTT client and the rules of edgefleet in virtual time; traced bytes and resident set. On
MicroPython's unix port: the runner over the service of tests/portable; heap in use after a collection.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

from edgeagent import log
from tests.model.schedule import Schedule
from tests.support import MICROPYTHON, ROOT

Samples = list[tuple[int, int]]  # (jobs done, bytes in use)
_LABELS = ("walk", "once", "fail", "crash", "refuse", "unknown", "config", "diagnostics")


class _Soak(Schedule):
    """Jobs one after the other, on a device that is never disturbed. What the test remembers of them is dropped."""

    def __init__(self, jobs: int, every: int) -> None:
        super().__init__({"seed": 1, "jobs": [], "acts": [], "faults": [], "calm": 0})
        self._jobs = jobs
        self._every = every
        self._serial = -1
        self.samples: Samples = []
        self.resident: Samples = []

    def _watch(self) -> None:
        if self.service.pending or self.device.active:
            self.time.after(1, self._watch)
            return
        done = self._serial + 1
        if done:
            self.service.operate("delete", "job", True)
        self.service.records.clear()
        self.device.runs.clear()
        self.network.requests.clear()
        self.network.uploads.clear()
        self.device.steps = 0
        if done % self._every == 0:
            gc.collect()
            self.samples.append((done, tracemalloc.get_traced_memory()[0]))
            self.resident.append((done, _resident()))
        if done == self._jobs:
            self.device.stop()
            return
        self._serial = done
        label = _LABELS[done % len(_LABELS)]
        document = {"operation": label, "count": 2, "pause": 0.05, "progress": True}
        if label == "config":
            document["config"] = {"attributes": {"n": done}}
        self.service.create("job", done, label, document)
        self.time.after(1, self._watch)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpython(jobs: int, every: int) -> tuple[Samples, Samples]:
    """(traced bytes, resident set) after every so many jobs."""
    soak = _Soak(jobs, every)
    ring = list(log.recent)
    tracemalloc.start()
    try:
        soak.run()
    finally:
        tracemalloc.stop()
        log.recent[:] = ring
    return soak.samples, soak.resident


def micropython(jobs: int, every: int) -> Samples:
    """Heap in use on MicroPython."""
    path = ":".join(str(ROOT / part) for part in ("tests/micropython", "tests/portable", ""))
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [MICROPYTHON, "-X", "heapsize=2m", str(ROOT / "tests/model/soak_program.py"), str(jobs), str(every)],
            cwd=folder,
            env={**os.environ, "MICROPYPATH": f"{path}:.frozen"},
            capture_output=True,
            text=True,
            timeout=3600,
            check=True,
        )
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith("SAMPLE")]
    return [(int(done), int(used)) for _, done, used in lines]


def growth(samples: Samples) -> int:
    """Bytes by which the last third of the samples is above the first, the start-up left out."""
    used = [size for _, size in samples[1:]]
    third = max(1, len(used) // 3)
    return sum(used[-third:]) // third - sum(used[:third]) // third


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10000)
    jobs = parser.parse_args().jobs
    every = max(1, jobs // 10)
    traced, resident = cpython(jobs, every)
    heap = micropython(jobs, every)
    worst = 0
    for name, samples in (("CPython, traced", traced), ("CPython, resident", resident), ("MicroPython, heap", heap)):
        print(f"{name}: " + " ".join(f"{done}:{used // 1024}K" for done, used in samples))
        print(f"{name}: {growth(samples)} bytes more at the end, {growth(samples) / jobs:.2f} a job")
        if "resident" not in name:  # which the allocator rounds as it likes
            worst = max(worst, growth(samples))
    return int(worst > 16384)


if __name__ == "__main__":
    sys.exit(main())
