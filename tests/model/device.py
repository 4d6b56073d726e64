# SPDX-License-Identifier: Apache-2.0
"""The simulated device: the agent's own runner, journal, requests and handlers, in boots that end at any step.

`Device.boot` is one boot. What the handlers do is written into the ledger, which survives everything.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from edgeagent import clock, compat, log, upload
from edgeagent.agent import Agent
from edgeagent.config import parse
from edgeagent.errors import AgentError, JobFailed, JobRejected
from edgeagent.jobs import journal
from edgeagent.jobs.registry import Handlers
from edgeagent.jobs.runner import Runner
from edgeagent.mqtt import backoff, rpc
from edgeagent.mqtt.client import Client
from tests.model.disk import Disk
from tests.model.network import Network
from tests.model.service import EPOCH, THING
from tests.model.virtual import PowerCut, Time, Violation, VirtualLoop

STATE = "/state"
JOURNAL = STATE + "/job.json"
CONFIG = "/agent.json"
# Operations, and whether they go on after a reset.
OPERATIONS = {
    "walk": True,
    "once": False,
    "fail": False,
    "crash": True,
    "refuse": False,
    "hungry": True,
    "starved": False,
    "hang": True,
    "stubborn": False,
    "restarter": True,
    "breaker": False,
    "cancels": False,
}
_LONG = 400  # seconds a handler may need for its own work


@dataclass
class Run:
    """One call of a handler. effects: numbers of the steps done. ended: "" while it runs, "returned", or the error."""

    job_id: str
    serial: int
    number: int
    operation: str
    boot: int
    begun: float
    resumed: bool
    resume: bool
    effects: list[int] = field(default_factory=list)
    ended: str = ""
    ended_at: float = 0.0
    told: float | None = None  # when the device learned that the execution is over
    kept: int = 0  # steps whose checkpoint was durable before this boot's end


class Port:
    name = "model"
    state_dir = STATE
    slots_dir = "/slots"

    def __init__(self, device: Device) -> None:
        self._device = device
        self._boot = device.boots
        self._cause = device.cause

    def boot_id(self) -> str:
        return f"boot-{self._boot}"

    def reset_cause(self) -> str:
        return self._cause

    def memory(self) -> dict[str, int]:
        return {"free": 100000}

    def facts(self) -> dict[str, str]:
        return {"board": "MODEL"}

    def reset(self) -> None:
        device = self._device
        if device.rng.random() < device.deaf:
            device.not_restarted += 1
            return
        device.soft = True
        raise PowerCut("reset")


class Device:
    """The ledger, and what the boots have in common. `deaf`: chance that the port does not restart when it should."""

    def __init__(self, time: Time, network: Network, disk: Disk, rng: random.Random, trace: Callable[..., None]):
        self.time = time
        self.network = network
        self.disk = disk
        self.rng = rng
        self.trace = trace
        self.runs: list[Run] = []
        self.boots = 0
        self.boot_times: list[float] = []
        self.cause = "power-on"
        self.soft = False
        self.deaf = 0.0
        self.not_restarted = 0
        self.short = 0.0  # chance that there is no memory for a reply
        self.starved = 0  # how often there was none, for a reply or a connection
        self.steps = 0  # of all boots
        self.before_step: Callable[[], None] = lambda: None
        self.active: list[Run] = []
        self.wall = 0.0  # how far its clock is off
        self.errors = 0  # of tasks that nobody looked at
        self.counts: dict[int, int] = {}  # steps that the job with a serial asks for
        network.on_over = self._told
        self._begun = 0.0
        self.client: Any = None
        self.runner: Any = None

    # --- boots

    def boot(self) -> bool:
        """Run until `stop()`, True, or until power is lost, False. Time goes on for as long as starting takes."""
        self.boots += 1
        self.runner = None
        self.soft = False
        self._begun = self.time.now
        self.boot_times.append(self.time.now)
        self.active = []
        loop = VirtualLoop(self.time, self._step)
        loop.set_exception_handler(self._unexpected)
        self.trace("boot %d (%s)", self.boots, self.cause)
        try:
            loop.run(self._main())
            return True
        except PowerCut as cut:
            self.trace("power cut: %s", cut)
            self.cause = "soft" if self.soft else "power-on"
            self.disk.dead = True
            return False
        finally:
            self.network.closed()
            loop.destroy()
            self.disk.dead = False
            if self.soft:
                self.disk.soft_reset()
            else:
                self.disk.cut(self.rng)

    def _step(self) -> None:
        self.steps += 1
        if self.steps > 300000:
            raise Violation("the device never rests")
        self.before_step()

    def _unexpected(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, PowerCut):
            self.errors += 1
            self.trace("unexpected: %s %r", context.get("message"), error)

    def starve(self) -> None:
        """There is no memory for a connection: what Agent._keep does then."""
        if self.runner:
            self.trace("starved")
            self.starved += 1
            try:
                if self.runner._job:
                    self.runner._job.starved()
            except JobFailed as error:
                self.trace("not counted: %s", error)
            self.runner.agent.port.reset()

    def loads(self, data: Any) -> Any:
        """As json.loads, for replies."""
        if self.short and len(data) > 200 and self.rng.random() < self.short:
            self.starved += 1
            raise MemoryError
        return json.loads(data)

    def stop(self) -> None:
        self._ended.set()

    async def _main(self) -> None:
        """What Agent does around the runner, without shadow and watchdog."""
        self._ended = asyncio.Event()
        agent = Agent(_CONFIG, Port(self), config_path=CONFIG)
        agent.handlers = _Handlers(self)
        agent.thing_name = THING
        agent.client = self.client = Client(self.network.open_stream, THING, 60)
        agent.requests = rpc.Requests(agent.client)
        log.configure(log.INFO, lambda line: self.trace("log %s", line))
        self.runner = Runner(agent)
        tasks = [asyncio.create_task(self.runner.run()), asyncio.create_task(self._sessions(agent))]
        await self._ended.wait()
        for task in tasks:
            task.cancel()

    async def _sessions(self, agent: Any) -> None:
        wait = backoff.Backoff()
        while True:
            start = clock.ticks()
            reader = None
            try:
                await agent.client.connect()
                self.trace("connected")
                reader = asyncio.create_task(agent.read(agent.client))
                await self.runner.attach()
                agent.connected.set()
                await reader
                await asyncio.sleep(self.rng.random())  # until the agent looks
            except AgentError as error:
                self.trace("session: %s", error)
            finally:
                agent.connected.clear()
                await agent.client.close()
                if reader:
                    reader.cancel()
            if clock.elapsed_ms(start) > 30000:
                wait.reset()
            await asyncio.sleep(wait.next())

    # --- the ledger

    def _told(self, job_id: str, number: int | None, token: str) -> None:
        waiting = any(entry.key == token for entry in self.client._open)  # else nobody looks at the answer
        for run in self.active:
            if waiting and run.told is None and (run.job_id, run.number) == (job_id, number):
                run.told = self.time.now

    def watched(self, operation: str, function: Any, resume: bool) -> Any:
        """The handler, with a line in the ledger for each call."""
        boot = self.boots

        async def run(job: Any) -> Any:
            entry = Run(job.id, job.document["n"], job.execution, operation, boot, self.time.now, job.resumed, resume)
            if self.active:
                raise Violation(f"{entry.job_id} begins while {self.active[0].job_id} runs")
            self.active.append(entry)
            self.runs.append(entry)
            self.trace("handler %s %s/%d begins, resumed=%s", operation, job.id, job.execution, job.resumed)
            job.entry = entry
            ended = ""  # by a power cut
            try:
                result = await function(job)
                ended = "returned"
                return result
            except JobFailed as error:
                ended = str(error)
                raise
            except Exception as error:
                ended = compat.exc_text(error)
                raise
            except asyncio.CancelledError:
                ended = "cancelled"
                raise
            finally:
                if boot == self.boots and not self.disk.dead:
                    entry.ended = ended
                    entry.ended_at = self.time.now
                    self.active.remove(entry)
                    self.trace("handler %s/%d: %s", job.id, job.execution, ended)

        return run

    def effect(self, job: Any, step: int) -> None:
        """The handler has done a step of its work."""
        entry = job.entry
        if entry.told is not None and self.time.now >= entry.told:
            raise Violation(f"{job.id} goes on after the device was told that it is over")
        for earlier in self.runs:
            same = (earlier.serial, earlier.number) == (entry.serial, entry.number)
            if same and earlier is not entry and earlier.kept > step:
                raise Violation(f"{job.id}: step {step} again, after its checkpoint")
        entry.effects.append(step)

    # --- its runtime

    @contextmanager
    def runtime(self) -> Iterator[None]:
        """The modules of the agent see the simulated files, clocks and randomness."""
        names = (
            (compat, "os", self.disk),
            (compat, "open", self.disk.open),
            (compat, "posix", self.disk),
            (journal, "os", self.disk),
            (clock, "ticks", lambda: int((self.time.now - self._begun) * 1000)),
            (clock, "now", lambda: int(EPOCH + self.time.now + self.wall)),
            (backoff, "os", SimpleNamespace(urandom=self.rng.randbytes)),
            (rpc, "os", SimpleNamespace(urandom=self.rng.randbytes)),
            (rpc, "json", SimpleNamespace(loads=self.loads, dumps=json.dumps)),
            (upload, "os", self.disk),
            (upload, "open", self.disk.open),
        )
        before = [(module, name, getattr(module, name, None)) for module, name, _ in names]
        for module, name, value in names:
            setattr(module, name, value)
        sink = log._sink
        try:
            yield
        finally:
            log.configure(log.INFO, sink)
            for module, name, value in before:
                if value is None:
                    delattr(module, name)
                else:
                    setattr(module, name, value)


class _Handlers(Handlers):
    """Built-in and test operations, each watched."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device
        for name, resume in OPERATIONS.items():
            self.register(name, getattr(_Work(device), name), resume)

    def get(self, operation: str) -> Any:
        found = super().get(operation)
        return found and (self._device.watched(operation, found[0], found[1]), found[1])


class _Work:
    """The operations of the test. Document: `count` steps, `pause` seconds before each, `progress`: say so."""

    def __init__(self, device: Device) -> None:
        self._device = device

    async def _do(self, job: Any, first: int = 0) -> None:
        document = job.document
        for step in range(first, document["count"]):
            await asyncio.sleep(document["pause"])
            self._device.effect(job, step)
            if job.entry.resume:
                job.checkpoint(done=step + 1)
                job.entry.kept = step + 1
            if document["progress"]:
                await job.progress(100 * step // document["count"])

    async def walk(self, job: Any) -> Any:
        await self._do(job, job.data.get("done", 0))
        return {"done": job.document["count"]}

    async def once(self, job: Any) -> Any:
        await self._do(job)

    async def fail(self, job: Any) -> None:
        await self._do(job)
        raise JobFailed("no oil", {"level": 3})

    async def crash(self, job: Any) -> None:
        await self._do(job, job.data.get("done", 0))
        raise ValueError("bad sensor")

    async def refuse(self, job: Any) -> None:
        await asyncio.sleep(job.document["pause"])
        raise JobRejected("not for me")

    async def hungry(self, job: Any) -> Any:
        await self._do(job, job.data.get("done", 0))
        mine = [run for run in self._device.runs if (run.serial, run.number) == (job.document["n"], job.execution)]
        if sum(run.ended == "MemoryError" for run in mine) < job.document["hunger"]:
            raise MemoryError

    async def starved(self, job: Any) -> None:
        await asyncio.sleep(job.document["pause"])
        raise MemoryError

    async def hang(self, job: Any) -> None:
        await asyncio.Event().wait()

    async def stubborn(self, job: Any) -> None:
        try:
            await self._do(job)
            await asyncio.sleep(_LONG)
        except asyncio.CancelledError:
            await asyncio.sleep(3)  # clean-up of its own

    async def cancels(self, job: Any) -> None:
        await asyncio.sleep(job.document["pause"])
        raise asyncio.CancelledError

    async def restarter(self, job: Any) -> Any:
        done = job.data.get("done", 0)
        if done < job.document["count"]:
            await asyncio.sleep(job.document["pause"])
            self._device.effect(job, done)
            job.checkpoint(done=done + 1)
            job.entry.kept = done + 1
            job.reset("test")

    async def breaker(self, job: Any) -> None:
        await asyncio.sleep(job.document["pause"])
        self._device.effect(job, 0)
        job.reset("test")


def config_text(disk: Disk) -> dict[str, Any]:
    """What agent.json says now."""
    return json.loads(disk.open(CONFIG, "rb").read())


FIRST_CONFIG = {
    "endpoint": "x",
    "ca": "ca",
    "thing_name": THING,
    "certificate": "c",
    "key": "k",
    "attributes": {},
}
_CONFIG = parse(FIRST_CONFIG)
