# SPDX-License-Identifier: Apache-2.0
"""Which cases a run is made of, cut into tasks of some seconds each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Task:
    """scenario, kind: as of board/sweep.py, or "linux" for one of linux.py. Of `parts` parts this is number `part`; of
    storms, the seeds from `part` to `parts`. every: all tears of a second cut. limit: stop after so many bad cases.
    """

    scenario: str
    kind: str
    part: int = 0
    parts: int = 1
    every: bool = False
    limit: int | None = None

    def members(self) -> dict[str, Any]:
        return asdict(self)


JOBS = ("update", "many", "again", "rollback", "hang", "first", "config", "trust", "steps", "identity")
QUEUES = ("outbox-life", "outbox-tight", "outbox-full")
LINUX = ("update", "many", "rollback", "hang", "first", "again", "config", "trust", "steps", "identity")
CONTROLS = ("in-place", "delete-then-rename", "pointer-first", "outbox-careless")


def full() -> list[Task]:
    """`make cuts`: every single cut and fault of every scenario, decay of every byte of every record, and second cuts
    at every operation of every recovery: of the short ones in every way.
    """
    tasks = []
    for name in JOBS:
        tasks += [Task(name, "cut"), Task(name, "fault")]
    for name, parts in (("update", 12), ("again", 8), ("rollback", 8), ("trust", 12), ("steps", 4), ("identity", 4)):
        tasks += [Task(name, "flip", part, parts) for part in range(parts)]
    tasks += [Task("config", "flip"), Task("large", "cut", 3, 7)]
    for name, parts, every in (
        ("update", 16, False),
        ("rollback", 8, False),
        ("identity", 6, False),
        ("config", 2, True),
        ("steps", 8, True),
        ("trust", 4, False),
    ):
        # Of a rollback every other place of the first cut: until the trial it is an update.
        tasks += [Task(name, "double", part, parts, every) for part in range(0, parts, 1 + (name == "rollback"))]
    for name, step in (("outbox-life", 1), ("outbox-tight", 9), ("outbox-full", 9)):
        tasks.append(Task(name, "cut", 0, step))
    tasks += [Task(name, "linux") for name in LINUX]
    # The longest first, so that no worker is left alone with one at the end.
    return sorted(tasks, key=lambda task: task.kind not in ("double", "flip"))


def sample() -> list[Task]:
    """Of everything a little, for the default suite."""
    tasks = [Task(name, "cut", 3, 9) for name in JOBS if name != "many"]
    tasks += [
        Task("large", "cut", 5, 331),
        Task("many", "cut", 5, 29),
        Task("update", "fault", 1, 13),
        Task("identity", "fault", 1, 13),
    ]
    tasks += [Task("update", "flip", 7, 151), Task("trust", "flip", 7, 151), Task("identity", "flip", 3, 31)]
    tasks += [Task("update", "double", 30, 57), Task("steps", "double", 11, 23), Task("trust", "double", 11, 23)]
    tasks += [Task(name, "storm", 0, 12) for name in ("update", "rollback", "trust", "identity", "outbox-life")]
    return tasks


def storms(count: int, first: int = 0) -> list[Task]:
    """`count` seeded storms over all scenarios, from seed `first` on."""
    names = (*JOBS, *QUEUES)
    each = 500
    tasks = []
    for number in range((count + each - 1) // each):
        start = first + number // len(names) * each
        size = min(each, count - number * each)
        tasks.append(Task(names[number % len(names)], "storm", start, start + size))
    return tasks
