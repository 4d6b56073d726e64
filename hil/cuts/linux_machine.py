# SPDX-License-Identifier: Apache-2.0
"""A Linux machine of two slots with an agent, for linux_image.py: power, boot loader, RAUC, and what must hold.

RAUC's command line is asked as on a real machine, and edgeagent/ports/linux/rauc.py reads the answers; what answers is
linux_rauc.py. Its writes are recorded as the agent's are, so an installation that is cut leaves any part of the slot.
Requests are of PART blocks. What a thread is to sync is synced when somebody waits for it.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import importlib
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgeagent import agent as real
from edgeagent.jobs import runner
from edgeagent.ota import guard, ranges, trial
from edgeagent.ports.linux import programs
from hil.cuts.linux_rauc import ATTEMPTS, BLOCK, KEY, Installation, Rauc, bundle, content

# The part that is written for MicroPython has no types.
devices: Any = importlib.import_module("hil.cuts.board.device")
files: Any = importlib.import_module("hil.cuts.board.content")
scenarios: Any = importlib.import_module("hil.cuts.board.scenarios")
Problem: Any = devices.Problem

PART = 4  # blocks, instead of 256
COST = 2 * PART  # blocks that one crash may cost: of one request, and as many of what was synced before
PROCESSES = 4  # of the agent in one boot of the machine
AFTER = ATTEMPTS + 1  # boots after the outcome
_REBOOT = ["/sbin/reboot"]
_RAUC = "/usr/bin/rauc"


class Late(futures.Future[None]):
    """What a thread does, done when somebody waits for it."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._work: Callable[[], None] | None = work

    def result(self, timeout: float | None = None) -> None:
        work, self._work = self._work, None
        if work:
            work()
            self.set_result(None)
        return super().result(timeout)

    def add_done_callback(self, function: Callable[[Any], object]) -> None:
        self.result()
        super().add_done_callback(function)


class Thread(futures.Executor):
    """Stands for a ThreadPoolExecutor."""

    def __init__(self, workers: int) -> None:
        """workers: 1."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Any:
        return Late(lambda: function(*arguments))


class Jobs(devices.Service):  # type: ignore[misc]
    """Has several executions, one after the other."""

    def _execution(self, status: str) -> dict[str, Any]:
        return {**super()._execution(status), "queuedAt": self.device.world.facts.get("queued", 1)}


class Agent(devices.Agent):  # type: ignore[misc]
    """With the parts and tasks of the real one."""

    part: Any = real.Agent.part
    _begin: Any = real.Agent._begin
    _keep: Any = real.Agent._keep

    def __init__(self, device: Any, version: str) -> None:
        self.services: list[Any] = []
        self._parts: dict[str, Any] = {}
        self._tasks: list[Any] = []
        self._dog = SimpleNamespace(feed=lambda: None)
        self.asked = 0
        super().__init__(device, version)
        self.client = self.requests = Jobs(device)
        self.config.image = {"rauc": _RAUC, "reboot": _REBOOT}

    async def healthy(self) -> tuple[bool, str]:
        self.asked += 1
        return (False, "unwell") if self.version in self.device.scenario.sick else (True, "")


class Machine(scenarios.Scenario):  # type: ignore[misc]
    """Slot A has version 1.0.0 and is booted; the other one is empty. The job brings version 2.0.0."""

    before, after = "1.0.0", "2.0.0"  # what runs until the job has its outcome, and then
    brings = "2.0.0"  # version of the bundle
    wanted = "SUCCEEDED"
    dead: tuple[str, ...] = ()  # versions that do not boot
    sick: tuple[str, ...] = ()  # versions whose application is not well
    key = KEY
    restarts = True  # does the machine when the old system tells it to
    marks = True  # does RAUC mark good what the job brings
    request = PART  # blocks that a request brings
    recorded = False  # is what happens now being recorded
    costs = COST, 1  # blocks that are fetched again after a crash; after a kill

    def __init__(self) -> None:
        self.size = 10 * BLOCK + 777
        versions = ("1.0.0", "2.0.0", "3.0.0")
        self.contents = {name: content(name, 2 * BLOCK + 777).ljust(self.size, b"\0") for name in versions}
        self.version_of = {image: version for version, image in self.contents.items()}
        self.bundle = bundle(self.brings, self.contents[self.brings], key=self.key)
        self.document = {
            "operation": "image",
            "url": "https://site/system.raucb",
            "size": len(self.bundle),
            "version": self.brings,
            "sha256": hashlib.sha256(self.bundle).hexdigest(),
        }
        self.device: Any
        self.service: Iterator[int] | None = None
        self.settled: set[str] = set()  # how machines were found in the end
        self._prepare()

    def _prepare(self) -> None:
        """Put what stands in for the machine and the network between them and the agent. For the whole process."""
        ranges.PART = PART
        gc.freeze()  # collecting is for what a boot has left

        async def at_once(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
            return function(*arguments, **named)

        async def execute(program: str, *words: str, **_: Any) -> Any:
            assert (program, words[0]) == (_RAUC, "install")
            self.device.world.set(installing=Path(words[1]).read_bytes())  # noqa: ASYNC240
            return Installation(self.go_on)

        stands: list[tuple[Any, str, Any]] = [
            (asyncio, "to_thread", at_once),
            (asyncio, "create_subprocess_exec", execute),
            (futures, "ThreadPoolExecutor", Thread),
            (subprocess, "run", self.command),
            (ranges, "fetch", self.fetch),
            (programs, "kernel_boot", lambda: f"kernel {self.device.world['boots']}"),
        ]
        for holder, name, function in stands:
            setattr(holder, name, function)

    # --- the machine

    def factory(self, root: str) -> None:
        Rauc(root + "/rauc", "A").make(self.contents["1.0.0"], self.size)
        for folder in ("/state", "/slots"):
            os.mkdir(root + folder)

    def rauc(self) -> Rauc:
        return Rauc(self.device.root + "/rauc", self.device.world.facts.get("slot", ""))

    def go_on(self) -> int | None:
        """RAUC's service does its next thing; percents, None when it is done. Raises ValueError."""
        world = self.device.world
        percent = None
        try:
            self.service = self.service or self.rauc().install(world["installing"])
            percent = next(self.service, None)
        finally:
            if percent is None:
                self.service = None
                world.set(installing=None)
        return percent

    def command(self, words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if words == _REBOOT:
            if self.restarts or self.device.ran != self.before:
                raise SystemExit("reboot")
            return subprocess.CompletedProcess(words, 1, b"", b"not now")  # type: ignore[arg-type]
        try:
            if self.device.world.facts.get("installing"):
                self.go_on()
                raise ValueError("already processing a different method")
            if "mark-good" in words and self.device.ran == self.after and not self.marks:
                raise ValueError("no")
            return subprocess.CompletedProcess(words, 0, self.rauc().answer(words[1:]), "")
        except ValueError as error:
            return subprocess.CompletedProcess(words, 1, "", str(error))

    async def fetch(
        self, agent: Any, url: str, start: int, size: int, sink: Any, have: bytearray, tick: Any, rate: int
    ) -> None:
        world = self.device.world
        missing = [n for n in range((size + BLOCK - 1) // BLOCK) if not have[n >> 3] >> (n & 7) & 1]
        while missing:
            part, missing = missing[: self.request], missing[self.request :]
            for number in part:
                await asyncio.sleep(0)
                world.set(fetched=world["fetched"] + 1)
                sink(number, self.bundle[number * BLOCK : min((number + 1) * BLOCK, size)])
            await tick(100 * (part[-1] + 1) * BLOCK // size)

    # --- power

    def power_on(self, device: Any) -> bool:
        self.device = device
        self.service = None
        device.boot = lambda: self.boot(device)
        done: bool = device.converge()
        return done

    def boot(self, device: Any) -> None:
        """Until the machine restarts, or nothing is left to do."""
        if device.world.facts.get("killed"):
            device.world.set(killed=False)
            device.ran = self.content(device.world["slot"])
        else:
            device.world.set(boots=device.world["boots"] + 1, installing=None, slot="")
            self.service = None
            device.ran = ""
            try:
                self.load(device)
            except SystemExit:
                return
        for _ in range(PROCESSES):
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(self.live(device))
            except SystemExit as end:
                why = end.code
            # Nothing that was under way hears of it: a reset is os._exit there. What it held is closed now.
            loop.close()
            del loop
            gc.collect()
            if why != "reset":  # else the agent alone, which its supervisor starts again
                return
        raise Problem("(d) the agent restarts for ever")

    def content(self, slot: str) -> str:
        """The version in a slot, "" for anything that is no whole image."""
        return self.version_of.get(self.rauc().read(slot), "")

    def load(self, device: Any) -> None:
        """What the boot loader does, over and over if what it boots is dead."""
        while True:
            slot = self.rauc().choose()
            if not slot:
                device.fail("(a) no slot is left to be booted")
            version = self.content(slot)
            if not version:
                device.fail(f"(b) boots slot {slot}, which holds no whole image")
            if version == self.after and self.record()["state"] == "trial":
                device.world.set(tried=True)
            if version not in self.dead:
                device.world.set(slot=slot)
                device.ran = version
                return

    async def live(self, device: Any) -> None:
        agent = Agent(device, device.ran)
        made = runner.Runner(agent)
        agent.part("image")
        await made.attach()
        for service in agent.services:
            agent._begin(service)
        agent._begin(made.run)
        running = agent._tasks[-1]
        for _ in range(devices.TURNS):
            await asyncio.sleep(0)
            if agent.asked > 2 and self.sick:
                agent._begin(lambda: guard.watch(agent))
                agent.asked = -devices.TURNS
            idle = made._record is None and made._job is None and device.world["reports"]
            if idle and all(task.done() for task in agent._tasks if task is not running):
                break
        else:
            device.fail("(d) hangs: {}, journal {}".format(device.world["status"], made._record))
        await guard.watch(agent)
        device.idle = True
        raise SystemExit("idle")

    # --- what must hold

    def record(self) -> dict[str, Any]:
        return trial.status(self.device.root + "/slots/image")

    def true(self, device: Any, details: dict[str, Any]) -> None:
        good = device.world["status"] == "SUCCEEDED"
        version = self.after if good else self.before
        record = self.record()
        if device.ran != version or details.get("version", version) != version:
            device.fail("(e) {}, {}, but {} runs".format(device.world["status"], details, device.ran))
        if self.rauc().primary() != self.rauc().booted:
            device.fail("(e) {}, but the next boot is of another slot".format(device.world["status"]))
        if good and (record["state"] != "confirmed" or self.rauc().booted not in self.rauc().env()["good"]):
            device.fail("(e) {}, but it is not marked good".format(device.world["status"]))
        if not good and record["state"] in ("trial", "confirmed") and record["version"] == self.after:
            device.fail("(e) {}, but {}".format(device.world["status"], record["state"]))

    def reported(self, device: Any, details: dict[str, Any]) -> None:
        if device.world["status"] != "SUCCEEDED" and not device.world["reason"]:
            device.fail("(e) {} without a reason".format(device.world["status"]))
        self.true(device, details)

    def end(self, device: Any, strict: bool) -> None:
        world = device.world
        twice = world["fetched"] - (len(self.bundle) + BLOCK - 1) // BLOCK
        crashes, kills = world.facts.get("crashes", 0), world.facts.get("kills", 0)
        # A kill before what a crash made unsure is cut off, and that is on record, has it cut off again.
        if twice > self.costs[0] * crashes + (COST if crashes else self.costs[1]) * kills:
            raise Problem(f"(d) {twice} blocks fetched twice after {crashes} crashes and {kills} kills")
        try:
            super().end(device, bool(self.wanted))
        except SystemExit:
            raise Problem(device.problem) from None

    def stays(self, device: Any, strict: bool) -> None:
        world = device.world
        known = {**self.record(), "n": 0, "kernel": 0}
        what = [world["status"], world.facts.get("tried"), device.ran]
        found = repr([*what, sorted(self.rauc().env().items()), sorted(known.items())])
        if found not in self.settled and not self.recorded:
            self.stay(device)
            self.settled.add(found)

    def stay(self, device: Any) -> None:
        """Whatever was reported stays so, however often the machine is switched off and on."""
        version = device.ran
        for number in range(AFTER):
            device.idle = False
            self.boot(device)
            if device.problem or not device.idle or device.ran != version or device.world["reports"] != 1:
                what = device.problem or "%s runs" % (device.ran or "nothing")
                raise Problem("(d) {} boots after {}: {}".format(number + 1, device.world["status"], what))
        self.true(device, {})

    def follows(self, device: Any, document: dict[str, Any], after: str) -> None:
        """Another job succeeds."""
        world = device.world
        changed = {"document": document, "before": device.ran, "after": after}
        changed.update(restarts=True, marks=True, ended="")
        held = {name: getattr(self, name) for name in changed}
        self.__dict__.update(changed)
        try:
            world.set(status="QUEUED", reason="", reports=0, queued=world.facts.get("queued", 1) + 1)
            device.idle = False
            device.converge()
            if world["status"] != "SUCCEEDED":
                raise Problem("(d) then {} {}: {}".format(document["operation"], world["status"], world["reason"]))
            self.true(device, {})
        finally:
            self.__dict__.update(held)

    def known(self, root: str) -> list[str]:
        """Of a bundle nothing is left."""
        slots = ["slots/image/state." + end for end in ("json", "bak", "json.new", "bak.new")]
        rauc = ["rauc/" + name for name in ("A", "B", "env", "status", "env.tmp", "status.tmp")]
        return [*scenarios.KNOWN, *slots, *rauc]
