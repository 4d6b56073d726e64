# SPDX-License-Identifier: Apache-2.0
"""Plays tasks in processes of their own and gathers what they tell."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hil.cuts.plan import Task
from hil.virtual_board import interpreter

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "hil" / "cuts" / "board" / "program.py"
HEAP = "64m"
SILENCE_S = 60.0  # without a line: it hangs, which on a board is for the watchdog to end
KEEP = 50  # bad cases that are kept for printing


@dataclass
class Tally:
    """cases: tried. states: distinct ones that were judged. seconds: of one process."""

    cases: int = 0
    states: int = 0
    cuts: int = 0
    bad_count: int = 0
    operations: int = 0
    seconds: float = 0.0
    bad: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.states += other.states
        self.cuts += other.cuts
        self.bad_count += other.bad_count
        self.seconds += other.seconds
        self.bad = (self.bad + other.bad)[:KEEP]
        self.operations = max(self.operations, other.operations)


def command(member: dict[str, Any], over: Path | None = None) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of the process that plays a task. over: folder with another `edgeagent`."""
    paths = [str(path) for path in (over, ROOT) if path]
    if member.get("kind") == "linux" or str(member.get("replay", "")).startswith("linux-"):
        return (
            [sys.executable, "-m", "hil.cuts.linux", json.dumps(member)],
            {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        )
    environment = {**os.environ, "MICROPYPATH": ":".join([*paths, ".frozen"])}
    return [interpreter(), "-X", f"heapsize={HEAP}", str(PROGRAM), json.dumps(member)], environment


def play(
    member: dict[str, Any],
    moved: Callable[[int], None] = lambda cases: None,
    over: Path | None = None,
    silence_s: float = SILENCE_S,
) -> Tally:
    """Play one task, or {"replay": id}. moved: called now and then with the number of cases since the last call.

    over: see `command`. silence_s: seconds without a case after which it hangs and is ended.
    """
    arguments, environment = command(member, over)
    tally = Tally()
    start = time.monotonic()
    told = 0
    with subprocess.Popen(
        arguments, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        other: list[str] = []
        ended = False
        timer = threading.Timer(silence_s, process.kill)
        timer.start()
        for line in process.stdout:
            timer.cancel()
            timer = threading.Timer(silence_s, process.kill)
            timer.start()
            if not line.startswith("{"):
                other.append(line)
                continue
            data = json.loads(line)
            if "bad" in data:
                tally.bad.append((data["bad"], data["problem"]))
            if "cases" in data:
                moved(data["cases"] - told)
                told = data["cases"]
            if data.get("end"):
                ended = True
                for name in ("cases", "states", "cuts", "operations"):
                    setattr(tally, name, data[name])
                tally.bad_count = data.get("bad_count", len(tally.bad))
        timer.cancel()
    tally.seconds = time.monotonic() - start
    if not ended:
        tally.bad_count += 1
        where = f"{member.get('scenario', member.get('replay'))}/{member.get('kind', '')}"
        what = "hangs" if process.returncode == -9 else f"the process ended with {process.returncode}"
        tally.bad.append((where, f"{what}: " + "".join(other)[-2000:]))
    return tally


def play_all(
    tasks: Iterable[Task], workers: int, moved: Callable[[int], None], done: Callable[[Task, Tally], None]
) -> dict[tuple[str, str], Tally]:
    """Play tasks in `workers` processes at a time. moved, done: called from threads, one at a time.

    Returns what was found, by scenario and kind.
    """
    found: dict[tuple[str, str], Tally] = {}
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def told(cases: int) -> None:
        with lock:
            moved(cases)

    def work() -> None:
        try:
            while not failures:
                task = waiting.get_nowait()
                tally = play(task.members(), told)
                with lock:
                    found.setdefault((task.scenario, task.kind), Tally()).add(tally)
                    done(task, tally)
        except queue.Empty:
            pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return found
