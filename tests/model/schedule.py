# SPDX-License-Identifier: Apache-2.0
"""Runs one schedule: the plan's jobs and faults happen, then nothing disturbs any more, then the oracle judges."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.model import oracle
from tests.model.device import CONFIG, FIRST_CONFIG, JOURNAL, Device
from tests.model.disk import Disk
from tests.model.network import Network
from tests.model.plan import Plan
from tests.model.service import Service
from tests.model.virtual import PowerCut, Time, Violation

CONVERGED_S = 7200  # after the last fault everything must be over by then
_PROBE_S = 1500  # the device may still be without power


class Schedule:
    """`run()` raises Violation. The parts stay, for those who want to look."""

    def __init__(self, plan: Plan, sink: Callable[[str], None] | None = None) -> None:
        seed = plan["seed"]
        rng = random.Random(f"{seed} world")
        self.plan = plan
        self._sink = sink
        self.time = Time()
        self.service = Service(self.time, lambda: rng.uniform(0, 60))
        self.network = Network(self.time, self.service, random.Random(f"{seed} network"), self.trace)
        self.disk = Disk(self._file_operation)
        self.device = Device(self.time, self.network, self.disk, random.Random(f"{seed} device"), self.trace)
        self.device.before_step = self._step
        self.network.on_packet = self._packet
        self._counts = {"step": 0, "packet": 0, "file": 0}
        self._cuts: dict[tuple[str, int], dict[str, Any]] = {}
        self._links: dict[int, dict[str, Any]] = {}
        self._full: list[tuple[int, int]] = []
        self._off = 1.0
        self._calm = False
        self._restarted = self._cut_now = self._starved = False
        self._probe = 0.0
        self.finished = 0.0

    def trace(self, message: str, *args: Any) -> None:
        if self._sink:
            self._sink(f"{self.time.now:10.3f} {message % args if args else message}")

    # --- faults

    def _cut(self, kind: str) -> str | None:
        self._counts[kind] += 1
        fault = None if self._calm else self._cuts.get((kind, self._counts[kind]))
        if not fault:
            return None
        self._off = fault["off"]
        return str(fault["mode"])

    def _step(self) -> None:
        if self._cut("step") or self._cut_now:
            self._cut_now = False
            raise PowerCut("at a step")
        if self._starved:
            self._starved = False
            self.device.starve()

    def _packet(self) -> None:
        if self._cut("packet"):
            raise PowerCut("after a packet")
        fault = None if self._calm else self._links.get(self._counts["packet"])
        if fault:
            self._break(fault)

    def _break(self, fault: dict[str, Any]) -> None:
        def up() -> None:
            self.network.up = True

        self.network.up = False
        self.network.broken(fault["notice"])
        self.time.after(fault["down"], up)

    def _file_operation(self) -> str | None:
        fate = self._cut("file")
        number = self._counts["file"]
        if not self._calm and any(first <= number < last for first, last in self._full):
            return fate or "full"
        return fate

    def _noise(self, fault: dict[str, Any], sign: int) -> None:
        if not self._calm:
            for name in ("loss", "double", "late"):
                setattr(self.network, name, fault[name] if sign > 0 else 0.0)

    def _arrange(self, fault: dict[str, Any]) -> None:
        kind = fault["kind"]
        if kind in self._counts:
            self._cuts[kind, fault["number"]] = fault
        elif kind == "link":
            self._links[fault["number"]] = fault
        elif kind == "noise":
            self.time.after(fault["at"], lambda: self._noise(fault, 1))
            self.time.after(fault["at"] + fault["seconds"], lambda: self._noise(fault, -1))
        elif kind == "full":
            self._full.append((fault["number"], fault["number"] + fault["operations"]))
        elif kind == "refuse":
            self.time.after(fault["at"], lambda: self.service.refusals.extend(fault["codes"]))
        elif kind == "deaf":
            self.device.deaf = fault["chance"]
        elif kind == "short":

            def short(chance: float) -> None:
                self.device.short = 0.0 if self._calm else chance

            self.time.after(fault["at"], lambda: short(fault["chance"]))
            self.time.after(fault["at"] + fault["seconds"], lambda: short(0.0))
        elif kind == "starved":

            def starve() -> None:
                self._starved = not self._calm

            for at in fault["at"]:
                self.time.after(at, starve)
        elif kind == "jump":

            def jump() -> None:
                self.device.wall += fault["seconds"]

            self.time.after(fault["at"], jump)

    # --- a run

    def run(self) -> None:
        """Raises Violation."""
        text = str(FIRST_CONFIG).replace("'", '"').encode()
        self._calm = True
        with self.disk.open(CONFIG, "wb") as file:
            file.write(text)
        self.disk.soft_reset()
        self._calm = False
        self._counts["file"] = 0
        plan = self.plan
        for serial, job in enumerate(plan["jobs"]):
            self.device.counts[serial] = job["document"].get("count", 0)
            self.time.after(job["at"], lambda serial=serial, job=job: self._create(serial, job))  # type: ignore[misc]
        for act in plan["acts"]:
            self.time.after(max(0, act["at"]), lambda act=act: self._act(act))  # type: ignore[misc]
        for fault in plan["faults"]:
            self._arrange(fault)
        self.time.after(plan["calm"], self._calm_down)
        with self.device.runtime():
            while not self.device.boot():
                off = self.time.now + (self._off if not self.device.soft else 2.0)
                self._off = 1.0
                while self.time.next <= off:
                    self.time.step()
                self.time.now = off
                if self.device.boots > 60:
                    raise Violation("the device does nothing but restart")
        oracle.check(self.service, self.device, self.network)

    def _create(self, serial: int, job: dict[str, Any]) -> None:
        self.trace("create %s %s", job["id"], job["label"])
        self.service.create(job["id"], serial, job["label"], job["document"], job["minutes"], job["retries"])

    def _act(self, act: dict[str, Any]) -> None:
        self.trace("operator: %s %s force=%s", act["action"], act["job"], act["force"])
        self.service.operate(act["action"], act["job"], act["force"])

    def _calm_down(self) -> None:
        self.trace("no more faults")
        self._calm = True
        self.network.loss = self.network.double = self.network.late = 0.0
        self.network.up = True
        self.device.deaf = self.device.short = 0.0
        self.service.refusals.clear()
        self._watch()

    def _watch(self) -> None:
        """Every half minute: is everything over?"""
        for record in self.service.pending:
            if record.operation in oracle.PATIENT:
                self.service.operate("delete" if record.number > 3 else "cancel-execution", record.job_id, True)
        now = self.time.now
        quiet = not self.service.pending and not self.device.active
        if quiet and self.disk.exists(JOURNAL) and self.disk.errors and not self._restarted:
            # It could not be removed when the flash was full; harmless, and gone after the next start.
            self._restarted = True
            self._cut_now = True
        quiet = quiet and not self.disk.exists(JOURNAL)
        if quiet and self._probe:
            self.finished = now
            self.device.stop()
            return
        if quiet:
            self._probe = now
            self.device.counts[len(self.plan["jobs"])] = 1
            document = {"operation": "once", "count": 1, "pause": 1, "progress": True}
            self.trace("create probe")
            self.service.create("probe", len(self.plan["jobs"]), "once", document)
        elif now - (self._probe or self.plan["calm"]) > (_PROBE_S if self._probe else CONVERGED_S):
            left = [(record.job_id, record.number, record.operation, record.history) for record in self.service.pending]
            runs = [run.job_id for run in self.device.active]
            raise Violation(f"not over: {left}, at work: {runs}, journal: {self.disk.exists(JOURNAL)}")
        self.time.after(30, self._watch)


def failure(plan: Plan, sink: Callable[[str], None] | None = None) -> str | None:
    """What went wrong in a schedule, None if nothing did."""
    try:
        Schedule(plan, sink).run()
    except Violation as wrong:
        return str(wrong)
    return None


def shrink(plan: Plan) -> Plan:
    """The plan without what its failure does not need."""
    again = True
    while again:
        again = False
        for part in ("faults", "acts", "jobs"):
            for n in range(len(plan[part]) - 1, -1, -1):
                smaller = {**plan, part: plan[part][:n] + plan[part][n + 1 :]}
                if failure(smaller):
                    plan = smaller
                    again = True
    return plan
