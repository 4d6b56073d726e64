# SPDX-License-Identifier: Apache-2.0
"""What happens in a schedule, drawn from its seed: jobs, what the operator does to them, and faults. Plain data."""

from __future__ import annotations

import random
from typing import Any

Plan = dict[str, Any]

_LABELS = (
    ("walk", 8), ("once", 6), ("fail", 2), ("crash", 2), ("refuse", 1), ("hungry", 3), ("starved", 1), ("hang", 2),
    ("stubborn", 1), ("restarter", 3), ("breaker", 2), ("cancels", 1), ("reboot", 4), ("config", 3),
    ("diagnostics", 2), ("unknown", 1), ("large", 1), ("huge", 1), ("shapeless", 1),
)  # fmt: skip
_ACTIONS = ("cancel", "cancel", "cancel", "delete", "delete-execution", "cancel-execution", "rejoin")


def _document(rng: random.Random, label: str, serial: int) -> dict[str, Any]:
    document: dict[str, Any] = {"operation": label}
    if label == "shapeless":
        return {"operation": "no such/name"}
    if label == "config":
        document["config"] = {"attributes": {str(serial): serial}}
    elif label in ("large", "huge"):  # over the cap of documents, over that of packets
        document["padding"] = "x" * (9000 if label == "large" else 20000)
    document["count"] = rng.randint(1, 4)
    document["pause"] = rng.choice((0, 0.05, 1, 7, 50))
    document["progress"] = rng.random() < 0.6
    document["hunger"] = rng.choice((1, 2, 3, 9))
    return document


def draw(seed: int) -> Plan:
    """The schedule of a seed."""
    rng = random.Random(seed)
    jobs: list[dict[str, Any]] = []
    acts: list[dict[str, Any]] = []
    span = rng.choice((1, 10, 120))  # seconds in which the jobs are created
    for serial in range(rng.randint(1, 4)):
        label = rng.choices([name for name, _ in _LABELS], [weight for _, weight in _LABELS])[0]
        again = jobs and rng.random() < 0.15
        job = {
            "id": rng.choice(jobs)["id"] if again else f"j{serial}",
            "at": rng.uniform(0, span),
            "label": label,
            "document": _document(rng, label, serial),
            "minutes": rng.choice((None, None, None, 1, 2)),
            "retries": rng.choice((0, 0, 0, 1, 2)),
        }
        jobs.append(job)
        if again:
            acts.append({"at": max(0, job["at"] - 1), "action": "delete", "job": job["id"], "force": True})
        if rng.random() < 0.4:
            acts.append(
                {
                    "at": job["at"] + rng.choice((0.1, 1, 5, 100)) * rng.random(),
                    "action": rng.choice(_ACTIONS),
                    "job": job["id"],
                    "force": rng.random() < 0.6,
                }
            )
    timers = random.Random(f"{seed} timers")
    for job in jobs:
        if timers.random() < 0.1:
            job["document"]["stepTimeoutInMinutes"] = timers.choice((1, 2, 10080))
    faults = _faults(rng) + _hunger(random.Random(f"{seed} hunger"))
    if len({job["id"] for job in jobs}) < len(jobs):
        # AWS tells executions by job id and number alone: a message that is still on the way when an id is used again
        # hits the wrong one, whatever a device does. A device that was away meanwhile must not.
        for fault in faults:
            if fault["kind"] == "noise":
                fault["late"] = 0
    return {"seed": seed, "jobs": jobs, "acts": acts, "faults": faults, "calm": rng.choice((100, 300, 900))}


def _hunger(rng: random.Random) -> list[dict[str, Any]]:
    """Of some schedules, lack of memory for replies for a while, and for a connection at some moments."""
    faults: list[dict[str, Any]] = []
    if rng.random() < 0.2:
        seconds = rng.choice((5, 60, 600))
        faults.append({"kind": "short", "at": rng.uniform(0, 60), "seconds": seconds, "chance": rng.choice((0.3, 1))})
    if rng.random() < 0.2:
        span = rng.choice((10, 120, 600))
        faults.append({"kind": "starved", "at": [rng.uniform(0, span) for _ in range(rng.choice((1, 3, 5, 9)))]})
    return faults


def _faults(rng: random.Random) -> list[dict[str, Any]]:
    faults: list[dict[str, Any]] = []
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        kind = rng.choice(("step", "step", "packet", "file", "file", "link", "link", "noise", "noise", "full",
                           "refuse", "deaf", "jump"))  # fmt: skip
        fault: dict[str, Any] = {"kind": kind}
        if kind in ("step", "packet", "file"):  # power is cut there
            fault["number"] = rng.randint(1, {"step": 500, "packet": 40, "file": 60}[kind])
            fault["mode"] = rng.choice(("before", "torn", "after"))
            fault["off"] = rng.choice((1, 10, 500)) * rng.random()
        elif kind == "link":
            fault["number"] = rng.randint(1, 40)  # after this packet
            fault["notice"] = rng.choice((0, 1, 90)) * rng.random()
            fault["down"] = rng.choice((1, 30, 400)) * rng.random()
        elif kind == "noise":
            fault["at"] = rng.uniform(0, 60)
            fault["seconds"] = rng.choice((5, 60, 600))
            for name in ("loss", "double", "late"):
                fault[name] = rng.choice((0, 0.1, 0.5))
        elif kind == "full":
            fault["number"] = rng.randint(1, 60)
            fault["operations"] = rng.choice((1, 5, 20))
        elif kind == "refuse":
            fault["at"] = rng.uniform(0, 30)
            count = rng.choice((1, 3, 8, 400))
            fault["codes"] = [rng.choice(("RequestThrottled", "InternalError")) for _ in range(count)]
        elif kind == "deaf":
            fault["chance"] = rng.random()
        else:
            fault["at"] = rng.uniform(0, 60)
            fault["seconds"] = rng.choice((-1, 1)) * 10 ** rng.randint(0, 8)
        faults.append(fault)
    return faults
