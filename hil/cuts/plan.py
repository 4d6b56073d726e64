# SPDX-License-Identifier: Apache-2.0
"""Which cases a run is made of, cut into tasks of some seconds each."""

from __future__ import annotations

from collections.abc import Iterable
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
    "once",
    "identity",
)
MISHAPS = ("ended", "faded", "eraser", "full", "lost", "stuck")
AGENTS = (
    *("agent", "agent-again", "agent-decayed", "agent-raises", "agent-hollow", "agent-hangs", "agent-escapes"),
    *("agents-worn", "agent-back"),
)
FIRMWARE = (
    *("firmware", "firmware-dead", "firmware-brief", "firmware-sick", "firmware-crash", "firmware-delta"),
    *("firmware-back", "firmware-back-sick", "firmware-back-lost"),
)
DELTAS = ("delta", "delta-bad")
GOING_BACK = ("rollback-job", "rollback-job-bad", "rollback-job-lost", "rollback-job-half")
QUEUES = ("outbox-life", "outbox-tight", "outbox-full")
IMAGES = ("image", "image-dead", "image-sick", "image-foreign", "image-stuck")
IMAGES_TWICE = ("image-twice", "image-dead-twice", "image-sick-twice")
IMAGES_BACK = (
    *("image-back", "image-back-stuck", "image-back-ended", "image-back-lost"),
    *("image-back-dead", "image-back-sick", "image-back-unmarked"),
)
IMAGES_BACK_TWICE = ("image-back-twice", "image-back-stuck-twice", "image-back-ended-twice")
LONG = ("many", "decayed")  # of which every second operation fails
CONTROLS = ("in-place", "delete-then-rename", "pointer-first", "outbox-careless")


# Kind; scenarios; parts; which of these. The longest first, so that no worker is left alone with one at the end.
FULL: tuple[tuple[str, tuple[str, ...], int, Iterable[int]], ...] = (
    # Of records that an update has too, some of the bytes.
    ("flip", ("update", "trust"), 12, range(12)),
    ("flip", ("again", "agent-again"), 8, (0,)),
    ("flip", ("rollback",), 8, range(0, 8, 4)),
    ("flip", ("agent-raises",), 64, (0,)),
    ("flip", ("firmware",), 6, range(0, 6, 3)),
    ("flip", ("firmware-back",), 16, range(0, 16, 8)),
    ("flip", ("steps", "identity"), 4, range(4)),
    ("flip", GOING_BACK[:3], 4, (1,)),
    ("flip", ("config",), 1, (0,)),
    # Second cuts: at every operation of the recovery from every first cut; of most scenarios from some.
    ("double", ("update",), 16, (0, 5, 10)),
    ("double", ("rollback", "agent", "agent-again"), 12, (0,)),
    ("double", ("firmware", "identity"), 6, range(0, 6, 2)),
    ("double", ("firmware-sick",), 6, range(0, 6, 3)),
    ("double", ("firmware-delta", "firmware-back", "firmware-back-sick"), 6, (0,)),
    ("double", ("firmware-dead",), 9, (0,)),
    ("double", ("trust",), 4, range(4)),
    ("double", ("config",), 2, range(2)),
    ("double", ("steps",), 8, range(8)),
    ("double", ("delta",), 48, (1,)),
    ("double", GOING_BACK, 3, (1,)),
    ("cut", (*JOBS, *AGENTS, *FIRMWARE, *DELTAS, *GOING_BACK, "outbox-life"), 1, (0,)),
    ("cut", ("large",), 7, (3,)),
    ("cut", MISHAPS, 6, (1,)),
    ("cut", ("outbox-tight", "outbox-full"), 9, (0,)),
    ("fault", (*(name for name in JOBS if name not in LONG), *GOING_BACK), 1, (0,)),
    ("fault", (*LONG, *DELTAS), 2, (0,)),
    ("fault", ("agent", "agent-hangs", "firmware", "firmware-sick", "firmware-back"), 1, (0,)),
    # Reads that go wrong: all of files, some of the many of the flash.
    ("read", ("update", "rollback"), 29, (3,)),
    ("read", ("trust",), 5, (3,)),
    ("misread", ("update", "rollback", "trust"), 1, (0,)),
    ("linux", (*JOBS, *DELTAS, *IMAGES), 1, (0,)),
    ("linux", IMAGES_TWICE, 8, (1, 5)),
    ("linux", IMAGES_BACK, 2, (1,)),
    ("linux", ("image-whole",), 8, (3,)),
    ("linux", IMAGES_BACK_TWICE, 64, (9,)),
)
EVERY = ("config", "steps")  # short enough for all tears of a second cut


def full() -> list[Task]:
    """`make cuts`: every single cut of most scenarios, faults of many, decay of every byte of the records of some, and
    second cuts at operations of a recovery: of the short scenarios at every one and in every way.
    """
    return [
        Task(name, kind, part, parts, every=kind == "double" and name in EVERY)
        for kind, names, parts, chosen in FULL
        for name in names
        for part in chosen
    ]


def sample() -> list[Task]:
    """Of everything a little, for the default suite; few processes, since each takes a second to begin."""
    return [
        Task("update+again+rollback+steps", "cut", 3, 9),
        Task("update+trust+steps", "double", 30, 71),
        Task("hang+first+config+trust+once+identity", "cut", 3, 9),
        Task("+".join(MISHAPS), "cut", 3, 61),
        Task("+".join(AGENTS), "cut", 3, 23),
        Task("update+identity+agent", "fault", 1, 13),
        Task("update+trust+identity", "flip", 7, 173),
        Task("update+trust", "read", 3, 331),
        Task("update+trust", "misread", 3, 17),
        Task("update+rollback+trust+identity+outbox-life", "storm", 0, 10),
        Task("+".join(FIRMWARE), "cut", 3, 23),
        Task("many", "cut", 5, 31),
        Task("large", "cut", 5, 331),
        Task("+".join(GOING_BACK), "cut", 2, 7),
    ]


def control(name: str) -> Task:
    """All cuts of a careless strategy; of the long one some."""
    return Task(name, "cut", 0, 9 if name.startswith("outbox") else 1)


def storms(count: int, first: int = 0) -> list[Task]:
    """`count` seeded storms over the scenarios below, from seed `first` on."""
    names = (*JOBS, *AGENTS, *FIRMWARE, *QUEUES)
    each = 2560  # neighbours share their beginnings
    tasks = []
    for number in range((count + each - 1) // each):
        start = first + number // len(names) * each
        size = min(each, count - number * each)
        tasks.append(Task(names[number % len(names)], "storm", start, start + size))
    return tasks
