# SPDX-License-Identifier: Apache-2.0
"""Linux images: the jobs `image` and `rollback` with all that linux.py records, on the machine of linux_machine.py.

Besides crashes: `linux-image/37.kill`, the agent alone is killed before operation 37, while kernel and RAUC go on; and
`linux-image-twice/37.5/12.3`, a second crash during the recovery from the first.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edgeagent.ota import trial
from edgeagent.ports.linux.rauc import System
from hil.cuts.linux import Disk, Rig, Tree, put
from hil.cuts.linux_machine import Machine, Problem
from hil.cuts.linux_rauc import SLOTS, Rauc, bundle


class Image(Machine):
    """Version 2.0.0 is good: installed, booted, confirmed."""


class Dead(Image):
    """The new image does not boot."""

    wanted = "FAILED"
    because = "rolled-back: the boot loader went back"
    dead = ("2.0.0",)


class Sick(Image):
    """The new image boots, and its application is not well."""

    wanted = "FAILED"
    because = "rolled-back: not confirmed within 60 s"
    sick = ("2.0.0",)


class Foreign(Image):
    """The bundle is not signed by whom this machine trusts."""

    wanted = "FAILED"
    because = "signature"
    key = b"another"
    costs = 11, 11  # all of it, between the refusal and its record


class Stuck(Image):
    """The machine does not restart when the old system tells it to. A crash may do it."""

    wanted = ""
    restarts = False


class Whole(Image):
    """The server does not know ranges: one request brings everything."""

    request = 1 << 20


class Back(Machine):
    """Going back from 2.0.0, which was confirmed here, to 1.0.0. Another update follows, in any case."""

    before, after, brings = "2.0.0", "1.0.0", "3.0.0"
    kept = True  # what has not been on trial can be gone back to by another job

    def __init__(self) -> None:
        super().__init__()
        self.update = self.document
        self.document = {"operation": "rollback", "kind": "image"}

    def factory(self, root: str) -> None:
        super().factory(root)
        for booted, version in (("B", "1.0.0"), ("A", "2.0.0")):
            install(root, booted, bundle(version, self.contents[version]))
        rauc = Rauc(root + "/rauc", "B")
        rauc.mark("good", "B")
        home = root + "/slots/image"
        os.mkdir(home)
        found = System(json.loads(rauc.answer(["status", "--detailed"])))
        record = {**trial.status(home), "state": "confirmed", "version": "2.0.0", "job": "update/1/1"}
        trial.save(home, {**record, "before": SLOTS["A"], "written": found.written(SLOTS["A"])})

    def stay(self, device: Any) -> None:
        super().stay(device)
        untried = device.world["status"] != "SUCCEEDED" and not device.world.facts.get("tried")
        if untried and self.kept:
            self.follows(device, self.document, self.after)
        self.follows(device, self.update, self.brings)


class BackDead(Back):
    """What is gone back to does not boot any more."""

    wanted = "FAILED"
    because = Dead.because
    dead = ("1.0.0",)


class BackSick(Back):
    """The application of what is gone back to is not well any more."""

    wanted = "FAILED"
    because = Sick.because
    sick = ("1.0.0",)


class BackStuck(Back):
    """The machine does not restart when it is told to go back. A crash may do it."""

    wanted = ""
    restarts = False


class BackEnded(Back):
    """The service ends the job just before the restart. A crash may come first."""

    wanted = ""
    ended = "restart"


class BackLost(Back):
    """Something else was installed over what had been kept, by hand, and left again."""

    wanted = "FAILED"
    because = "slot: nothing is kept"
    kept = False

    def factory(self, root: str) -> None:
        super().factory(root)
        install(root, "B", self.bundle)
        Rauc(root + "/rauc", "B").mark("active", "B")


class BackUnmarked(Back):
    """RAUC does not mark good what was gone back to."""

    wanted = "FAILED"
    because = "mark-good"
    marks = False


def install(root: str, booted: str, data: bytes) -> None:
    """As from a shell in slot `booted`."""
    for _ in Rauc(root + "/rauc", booted).install(data):
        pass


class Crashes(Rig):
    """linux.Rig, for crashes and kills of a machine whose kernel counts. Has parts."""

    def scenarios(self) -> dict[str, Any]:
        return SCENARIOS

    def record(self, fill: Callable[[str], None], facts: Any = None) -> None:
        self.scenario.recorded = True
        try:
            super().record(fill, facts)
        finally:
            self.scenario.recorded = False

    def cases(self) -> Iterator[tuple[str, Tree, Any]]:
        return itertools.islice(self.crashes(), self.wanted.get("part", 0), None, self.wanted.get("parts", 1))

    def crashes(self) -> Iterator[tuple[str, Tree, Any]]:
        for case, tree, facts in super().cases():
            yield case, tree, {**facts, "crashes": facts.get("crashes", 0) + 1}
        disk = Disk()
        for k, operation in enumerate(self.operations):
            if k >= self.start and operation[-1].get("slot"):
                kills = operation[-1].get("kills", 0)
                facts = {**operation[-1], "killed": True, "kills": kills + 1}
                yield f"{self.name}/{k}.kill", disk.tree(self.root), facts
            disk.apply(operation)


class Twice(Crashes):
    """A second crash, or kill, at every operation of the recovery from the first; of each one state."""

    def cases(self) -> Iterator[tuple[str, Tree, Any]]:
        replay, part = self.wanted.get("replay", ""), slice(self.wanted.get("part"), None, self.wanted.get("parts"))
        for case, tree, facts in list(some(self.crashes()))[part]:
            if replay.startswith(case + "/") or not replay:
                self.name = case
                try:
                    self.record(functools.partial(put, tree), facts)
                except Problem:
                    yield case, tree, facts  # bad without a second one
                else:
                    yield from some(self.crashes())


def some(cases: Iterable[tuple[str, Tree, Any]]) -> Iterator[tuple[str, Tree, Any]]:
    """One case of each operation, drawn by its number."""
    for place, found in itertools.groupby(cases, key=lambda case: case[0].rpartition(".")[0]):
        yield random.Random(place).choice(list(found))


SCENARIOS: dict[str, Any] = {
    "image": Image,
    "image-dead": Dead,
    "image-sick": Sick,
    "image-foreign": Foreign,
    "image-stuck": Stuck,
    "image-whole": Whole,
    "image-back": Back,
    "image-back-dead": BackDead,
    "image-back-sick": BackSick,
    "image-back-stuck": BackStuck,
    "image-back-ended": BackEnded,
    "image-back-lost": BackLost,
    "image-back-unmarked": BackUnmarked,
    "image-twice": Image,
    "image-dead-twice": Dead,
    "image-sick-twice": Sick,
    "image-back-twice": Back,
    "image-back-stuck-twice": BackStuck,
    "image-back-ended-twice": BackEnded,
}
RIGS = {name: Twice if name.endswith("-twice") else Crashes for name in SCENARIOS}
