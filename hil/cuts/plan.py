# SPDX-License-Identifier: Apache-2.0
"""Which cases a run is made of, cut into tasks of some seconds each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Task:
    """scenario: one, or several with "+" between. kind: as of board/sweep.py, or "linux" for linux.py. Of `parts` parts
    this is number `part`; of storms, the seeds from `part` to `parts`. every: all tears of a second cut. limit: stop
    after so many bad cases.
    """

    scenario: str
    kind: str
    part: int = 0
    parts: int = 1
    every: bool = False
    limit: int | None = None

    def members(self) -> dict[str, Any]:
        return asdict(self)


JOBS = (
    "update",
    "many",
    "again",
    "upgrade",
    "shared",
    "decayed",
    "rollback",
    "hang",
    "first",
    "config",
    "trust",
    "steps",
    "identity",
)
AGENTS = ("agent", "agent-again", "agent-decayed", "agent-raises", "agent-hollow", "agent-hangs", "agent-escapes")
FIRMWARE = ("firmware", "firmware-dead", "firmware-brief", "firmware-sick", "firmware-delta")
QUEUES = ("outbox-life", "outbox-tight", "outbox-full")
LINUX = (
    "update",
    "many",
    "upgrade",
    "shared",
    "decayed",
    "rollback",
    "hang",
    "first",
    "again",
    "config",
    "trust",
    "steps",
    "identity",
)
CONTROLS = ("in-place", "delete-then-rename", "pointer-first", "outbox-careless")


def full() -> list[Task]:
    """`make cuts`: every single cut of every scenario, faults of most, decay of every byte of the records, and second
    cuts at every operation of a recovery: of the short scenarios in every way.
    """
    tasks = [Task(name, "cut") for name in (*JOBS, *AGENTS, *FIRMWARE)]
    tasks += [Task(name, "fault") for name in (*JOBS, "agent", "agent-hangs", "firmware", "firmware-sick")]
    # Of records that an update has too, some of the bytes.
    for name, parts, step in (
        ("update", 12, 1),
        ("again", 8, 4),
        ("agent-again", 8, 2),
        ("firmware", 6, 2),
        ("rollback", 8, 2),
        ("trust", 12, 1),
        ("steps", 4, 1),
        ("identity", 4, 1),
    ):
        tasks += [Task(name, "flip", part, parts) for part in range(0, parts, step)]
    tasks += [Task("config", "flip"), Task("large", "cut", 3, 7)]
    for name in ("rollback-job", "rollback-job-bad"):
        tasks += [Task(name, "cut"), Task(name, "fault"), Task(name, "double", 1, 3), Task(name, "flip", 1, 4)]
    # Second cuts: at every operation of the recovery from every first cut; of most scenarios from some.
    for name, parts, step, every in (
        ("update", 16, 1, False),
        ("rollback", 8, 4, False),
        ("agent", 8, 4, False),
        ("agent-again", 8, 5, False),
        ("firmware", 6, 2, False),
        ("firmware-sick", 6, 3, False),
        ("firmware-dead", 9, 9, False),
        ("firmware-delta", 6, 6, False),
        ("identity", 6, 2, False),
        ("config", 2, 1, True),
        ("steps", 8, 1, True),
        ("trust", 4, 1, False),
    ):
        tasks += [Task(name, "double", part, parts, every) for part in range(0, parts, step)]
    for name, step in (("outbox-life", 1), ("outbox-tight", 9), ("outbox-full", 9)):
        tasks.append(Task(name, "cut", 0, step))
    # Reads that go wrong: all of files, some of the many of the flash.
    for name, step in (("update", 29), ("rollback", 29), ("trust", 5)):
        tasks += [Task(name, "read", 3, step), Task(name, "misread")]
    for name in ("delta", "delta-bad"):
        tasks += [Task(name, "cut"), Task(name, "fault"), Task(name, "linux")]
    tasks.append(Task("delta", "double", 1, 8))
    tasks += [Task(name, "linux") for name in LINUX]
    # The longest first, so that no worker is left alone with one at the end.
    return sorted(tasks, key=lambda task: task.kind not in ("double", "flip"))


def sample() -> list[Task]:
    """Of everything a little, for the default suite; few processes, since each takes a second to begin."""
    return [
        Task("update+again+rollback+steps", "cut", 3, 9),
        Task("update+trust+steps", "double", 30, 71),
        Task("hang+first+config+trust+identity", "cut", 3, 9),
        Task("+".join(AGENTS), "cut", 3, 23),
        Task("update+identity+agent", "fault", 1, 13),
        Task("update+trust+identity", "flip", 7, 173),
        Task("update+trust", "read", 3, 331),
        Task("update+trust", "misread", 3, 17),
        Task("update+rollback+trust+identity+outbox-life", "storm", 0, 10),
        Task("+".join(FIRMWARE), "cut", 3, 23),
        Task("many", "cut", 5, 31),
        Task("large", "cut", 5, 331),
        Task("rollback-job+rollback-job-bad", "cut", 2, 7),
    ]


def storms(count: int, first: int = 0) -> list[Task]:
    """`count` seeded storms over all scenarios, from seed `first` on."""
    names = (*JOBS, *AGENTS, *FIRMWARE, *QUEUES)
    each = 2500
    tasks = []
    for number in range((count + each - 1) // each):
        start = first + number // len(names) * each
        size = min(each, count - number * each)
        tasks.append(Task(names[number % len(names)], "storm", start, start + size))
    return tasks
