# SPDX-License-Identifier: Apache-2.0
"""Size, memory and speed of the agent, beside its peers and limits: `make bench`. JSON on the last line.

Peak heap is found by bisection: the smallest `-X heapsize` in which the work still succeeds on the 64-bit unix port,
whose objects are larger than a board's; TLS buffers are outside that heap there (boards/UNIX_VIRTUAL/README.md).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench import job_latency, publishing
from edgefleet import devices
from examples.demo.judge import Judge
from examples.demo.processes import DemoError, FleetManager
from hil.virtual_board import interpreter
from tests.integration.rig import Rig

BOARD = "UNIX_VIRTUAL"
MPY_LIMIT = 40 * 1024
RESIDENT_LIMIT = 20 * 1024
HEAP_LIMIT_KIB = 128
STEP_KIB = 4
SPEED_HEAP_KIB = 160  # a 200 KB application: its hash list and file table do not fit beside the agent in 128 KB yet


def mpy_sizes() -> dict[str, int]:
    """Board file → bytes, as they are shipped to the virtual board."""
    return {target: len(bytecode) for target, bytecode in devices.agent_bytecode(BOARD).items()}


def import_heap() -> dict[str, int]:
    """Module → bytes that it retains after import: the resident `edgeagent`, and beside it each loaded later."""
    with tempfile.TemporaryDirectory() as scratch:
        devices.write_agent(Path(scratch) / "agent", BOARD)
        modules = [path.removesuffix("/__init__").replace("/", ".") for path in devices.agent_sources(BOARD)]
        return {module: _retained(scratch, module) for module in modules}


def _retained(folder: str, module: str) -> int:
    resident = "" if module == "edgeagent" else "import edgeagent\n"
    program = (
        f"import gc\n{resident}gc.collect()\nbefore = gc.mem_alloc()\n__import__('{module}')\n"
        "gc.collect()\nprint(gc.mem_alloc() - before)"
    )
    result = subprocess.run(
        [interpreter(), "-X", "heapsize=400k", "-c", program],
        cwd=folder,  # the sources in the caller's folder would come first
        env={**os.environ, "MICROPYPATH": f"{folder}/agent:.frozen"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(result.stdout)


def smallest_heap(works: Callable[[int], bool], low: int, high: int) -> int:
    """The least multiple of STEP_KIB in (low, high] for which `works`, taking it to be monotonic."""
    while high - low > STEP_KIB:
        middle = (low + high) // 2 // STEP_KIB * STEP_KIB
        if works(middle):
            high = middle
        else:
            low = middle
    return high


class Bench:
    """One site, and a fresh board for every heap size tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = FleetManager(folder / "data")
        self.fleet.start()
        self.judge = Judge(self.fleet)
        self.serial = 0

    def board(self, heap_kib: int) -> Rig:
        self.serial += 1
        folder = self.folder / f"rig{self.serial}"
        folder.mkdir()
        return Rig(self.fleet, self.judge, folder, f"bench-{self.serial}", heap=f"{heap_kib}k")

    def onboards(self, heap_kib: int) -> bool:
        rig = self.board(heap_kib)
        rig.board.power_on()
        try:
            rig.wait_running("1.0.0", 12)
            return "MemoryError" not in rig.board.console
        except DemoError:
            return False
        finally:
            rig.board.power_off()

    def works(self, heap_kib: int) -> bool:
        """A job that loads what it needs, changes a file and reports."""
        return self.runs(heap_kib, lambda rig: {"operation": "config", "config": {"log_level": "warning"}})

    def updates(self, heap_kib: int) -> bool:
        return self.runs(heap_kib, lambda rig: rig.publish("2.0.0"))

    def runs(self, heap_kib: int, document: Callable[[Rig], dict[str, Any]]) -> bool:
        """Does a job succeed, straight after onboarding, without running out of memory once?"""
        rig = self.board(heap_kib)
        rig.board.power_on()
        try:
            rig.wait_running("1.0.0", 12)
            job = f"bench-{rig.thing}"
            rig.create_job(job, document(rig))
            status, _ = rig.outcome(job, 20)
            return status == "SUCCEEDED" and "MemoryError" not in rig.board.console
        except DemoError:
            return False
        finally:
            rig.board.power_off()

    def idle(self) -> dict[str, Any]:
        """Memory as the agent itself reports it in a diagnostics bundle, at the promised heap."""
        rig = self.board(HEAP_LIMIT_KIB)
        rig.board.power_on()
        try:
            rig.wait_running("1.0.0")
            rig.create_job(f"diag-{rig.thing}", {"operation": "diagnostics"})
            rig.outcome(f"diag-{rig.thing}")
            body = self.judge.s3.get_object(Bucket="edgeagent-uploads", Key=f"uploads/{rig.thing}/diag-{rig.thing}")
            records = [json.loads(line) for line in body["Body"].read().decode().splitlines()]
            memory: dict[str, Any] = next(record["memory"] for record in records if "memory" in record)
            return memory
        finally:
            rig.board.power_off()

    def update_speed(self) -> int:
        """Bytes per second, median of three."""
        return round(statistics.median(size / seconds for size, seconds in [self.throughput() for _ in range(3)]))

    def throughput(self, size: int = 200_000) -> tuple[int, float]:
        """(payload bytes, seconds from IN_PROGRESS to the reset into the trial) of an update with a big data file."""
        rig = self.board(SPEED_HEAP_KIB)
        rig.add_release("9.0.0", os.urandom(size))
        rig.board.power_on()
        try:
            rig.wait_running("1.0.0")
            boots = len(rig.board.resets)
            rig.create_job(f"speed-{rig.thing}", rig.publish("9.0.0"))
            started = time.monotonic()
            while len(rig.board.resets) == boots and time.monotonic() - started < 120:
                time.sleep(0.01)
            seconds = time.monotonic() - started
            status, details = rig.outcome(f"speed-{rig.thing}")
            if status != "SUCCEEDED":
                raise DemoError(f"the update ended {status}: {details}")
            return size, seconds
        finally:
            rig.board.power_off()


def main() -> None:
    sizes = mpy_sizes()
    figures: dict[str, Any] = {
        "mpy_bytes": sum(sizes.values()),
        "mpy_resident_bytes": sizes["edgeagent/__init__.mpy"],
        "mpy_bytes_by_file": sizes,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bench = Bench(folder)
        steps: list[tuple[str, Callable[[], Any]]] = [
            ("import_heap_bytes", import_heap),
            ("publishes_per_s", lambda: publishing.measure(bench.fleet, bench.judge, folder)),
            ("job_latency_ms", lambda: job_latency.measure(bench.fleet, bench.judge, folder)),
            ("idle_memory", bench.idle),
            ("connect_heap_kib", lambda: smallest_heap(bench.onboards, 48, 256)),
            ("job_heap_kib", lambda: smallest_heap(bench.works, 48, 256)),
            ("ota_heap_kib", lambda: smallest_heap(bench.updates, 48, 256)),
            ("ota_bytes_per_s", bench.update_speed),
        ]
        try:
            for name, measure in track(steps, "measuring …", console=Console(stderr=True)):
                figures[name] = measure()
        finally:
            bench.fleet.stop()
    show(figures)
    print(json.dumps(figures))


def show(figures: dict[str, Any]) -> None:
    table = Table("figure", "measured", "limit or peer")
    table.add_row("board files, .mpy", f"{figures['mpy_bytes']} B", f"{MPY_LIMIT} B")
    table.add_row("of them resident", f"{figures['mpy_resident_bytes']} B", f"{RESIDENT_LIMIT} B")
    table.add_row("heap of the resident part after import", f"{figures['import_heap_bytes']['edgeagent']} B", "")
    table.add_row("idle, connected", json.dumps(figures["idle_memory"]), "")
    for name in ("connect", "job", "ota"):
        table.add_row(f"smallest heap: {name}", f"{figures[name + '_heap_kib']} KiB", f"{HEAP_LIMIT_KIB} KiB")
    table.add_row(f"update of 200 KB in {SPEED_HEAP_KIB} KiB, job to reset", f"{figures['ota_bytes_per_s']} B/s", "")
    for runtime, found in figures["job_latency_ms"].items():
        table.add_row(f"create to work, {runtime}", f"p50 {found['p50']} ms, p99 {found['p99']} ms", "")
    ours = {who: rate for who, rate in figures["publishes_per_s"].items() if who.endswith("ours")}
    for who, rate in ours.items():
        runtime = who.split(",")[0]
        others = {
            name.split(", ")[1]: peer
            for name, peer in figures["publishes_per_s"].items()
            if name.startswith(runtime) and name != who
        }
        peers = ", ".join(f"{name} {peer}/s" for name, peer in others.items())
        table.add_row(f"publishes at QoS 1, {runtime}", f"{rate}/s", peers)
    Console().print(table)


if __name__ == "__main__":
    main()
