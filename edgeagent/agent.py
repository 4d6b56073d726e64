# SPDX-License-Identifier: Apache-2.0
"""Agent: what an application touches. Start-up order, supervision, reconnecting.

    agent = Agent.from_file("agent.json", version="1.2.0")

    @agent.job("calibrate")
    async def calibrate(job):
        await job.progress(50, step="zeroing")
        return {"offset": 12}

    agent.attribute("engineStarts", read_counter)
    agent.run()                                    # or: await agent.start() beside your own tasks

`start` never ends because of the network: it backs off and connects again. Cancelling it says DISCONNECT and stops.
"""

import asyncio
import gc
import os
import sys

from edgeagent import __version__, clock, log
from edgeagent.attributes import Attributes
from edgeagent.compat import MICROPYTHON, Any, const, exc_text, exists, traceback_text, wait_for
from edgeagent.errors import AgentError, Refused, TransportError
from edgeagent.jobs.registry import Handlers, unload
from edgeagent.jobs.runner import Runner
from edgeagent.mqtt.backoff import Backoff
from edgeagent.mqtt.client import Client
from edgeagent.mqtt.rpc import Requests
from edgeagent.ota import Running
from edgeagent.ports import detect
from edgeagent.shadow import Shadow

_WATCHDOG_S = const(120)  # longer than any one bounded step between two feeds (provisioning: 75 s)
_STABLE_MS = const(30000)  # what ran so long before it failed starts a new row of failures
_STARVED = const(5)  # failures in a row for lack of memory until the board restarts: its heap never heals by itself
_COLLECT_BYTES = const(8192)
_CHECK_S = const(30)  # for one application health check
TICK_S = 1  # between two feeds, and until the loss of the link is noticed at the latest
TICKS = 60  # until changed attributes are looked for


class Agent:
    """One device. Attributes for handlers: config, port, client, requests, thing_name, attributes, handlers,
    counters, and `connected`, an asyncio.Event that is set while the service can be reached.
    """

    thing_name = ""
    client: "Any" = None
    requests: "Any" = None
    pause = 0  # seconds that the next session is put off; see https.py
    credentials: "tuple[str, str]"  # paths of certificate and key in use
    _dog: "Any"
    _runner: "Any" = None
    _presence: "Any" = None

    def __init__(
        self, config: "Any", port: "Any" = None, version: str = "0.0.0", config_path: "str | None" = None
    ) -> None:
        """config: a Config. port: default this runtime's. version: of the application, reported as `firmware`."""
        self.config_path = config_path
        self.port = port or detect(config)
        self.version = version
        self.connected = asyncio.Event()
        self.counters = {"connects": 0}
        self.collectors: "list[Any]" = []  # (section, function) of diagnostics bundles
        self.handlers = Handlers()
        self.attributes = Attributes()
        self.attributes.set(**self.facts())
        self.configure(config)
        self.services: "list[Any]" = []  # coroutine functions that start() keeps running beside the sessions
        self.attached: "list[Any]" = []  # functions without arguments, called in each new session
        self._parts: "dict[str, Any]" = {}
        self._checks: "list[Any]" = []
        self.hooks: "dict[str, Any]" = {}  # of updates: functions by name; see ota/gate.py
        self._tasks: "list[Any]" = []

    @classmethod
    def from_file(cls, path: "str | None" = None, version: str = "0.0.0") -> "Agent":
        """path: default /agent.json on boards, EDGEAGENT_CONFIG or agent.json elsewhere. Raises ConfigError."""
        if path is None:
            path = "/agent.json" if MICROPYTHON else os.environ.get("EDGEAGENT_CONFIG", "agent.json")
        from edgeagent.config import load

        config = load(path)
        del load
        unload(["edgeagent.config"])
        return cls(config, None, version, path)

    # --- what an application declares

    def job(self, operation: str, resume: bool = False) -> "Any":
        """Decorator: `async def fn(job)` does the job operation; job: a JobContext (jobs/runner.py).

        What it returns, a dict or None, becomes the statusDetails of SUCCEEDED. It raises JobFailed(reason, details)
        for FAILED, JobRejected for REJECTED; any other exception is FAILED with its type and text. resume: after a
        reset it is called again, with job.resumed and the data of its last checkpoint; else the job is FAILED.
        Raises ConfigError for a name that cannot stand in a job document.
        """

        def register(function: "Any") -> "Any":
            self.handlers.register(operation, function, resume)
            return function

        return register

    def health_check(self, function: "Any") -> "Any":
        """Decorator: a function (plain or async) that says whether the application works; it gates update trials.

        Unhealthy: it raises, or returns False or (False, reason).
        """
        self._checks.append(function)
        return function

    def may_update(self, function: "Any") -> "Any":
        """Decorator: a function (plain or async) of "download" or "restart": may an update do that now?

        Not now: it returns False or (False, reason), or raises. It is asked again every few seconds.
        """
        self.hooks["may_update"] = function
        return function

    def battery(self, function: "Any") -> "Any":
        """Decorator: a function (plain or async) that returns the battery's charge in percent."""
        self.hooks["battery"] = function
        return function

    def diagnostics(self, name: str) -> "Any":
        """Decorator: what a function (plain or async) returns, or a generator yields, is section `name` of a bundle.

        Chunks are text, bytes or JSON values; a list is several. If it raises, the bundle says so.
        """

        def register(function: "Any") -> "Any":
            self.collectors.append((name, function))
            return function

        return register

    def attribute(self, name: str, value: "Any") -> None:
        """Report a value, or what a function returns, in the shadow. Raises ConfigError naming the attribute."""
        self.attributes.register(name, value)

    def desired(self, shadow: "str | None" = None) -> "Any":
        """Decorator: a function (plain or async) of a dict, what is desired of this device and not reported as such.

        It is called with all of that after each connect, and again when it changes, one call at a time. What it returns
        (a dict) is reported. shadow: name of a named shadow, default the classic one.
        """

        def register(function: "Any") -> "Any":
            from edgeagent.desired import Desired

            self.services.append(Desired(self, shadow, function).run)
            return function

        return register

    def telemetry(self, name: str, value: "Any") -> bool:
        """Store a value of a series, with the time; it is sent when there is a link. False if it is refused."""
        return self.part("telemetry").record(name, value)  # type: ignore[no-any-return]

    def series(self, name: str, **options: "Any") -> None:
        """Declare how a series is filtered and aggregated before it is stored; see telemetry.py."""
        self.part("telemetry").series(name, **options)

    def part(self, name: str) -> "Any":
        """The optional part edgeagent/NAME.py of this agent, loaded when first asked for."""
        name = "edgeagent." + name
        if name not in self._parts:
            __import__(name)
            self._parts[name] = sys.modules[name].Part(self)
        return self._parts[name]

    async def healthy(self) -> "tuple[bool, str]":
        """(True, "") if all health checks pass, else (False, reason)."""
        for check in self._checks:
            result, why = await self.ask(check)
            if result is False:
                return False, "%s: %s" % (getattr(check, "__name__", "check"), why)
        return True, ""

    async def ask(self, function: "Any", *arguments: "Any") -> "Any":
        """(result, reason) of a function of the application; result is False if it raises, or has not answered in time.

        function: plain or async, and may return such a pair.
        """
        why = "returned False"
        try:
            result = function(*arguments)
            if hasattr(result, "send"):
                result = await wait_for(result, _CHECK_S)
            if isinstance(result, tuple):
                result, why = result
        except Exception as error:  # the application's; TimeoutError: no answer
            result = False
            why = exc_text(error)
        return result, why

    def facts(self) -> "dict[str, Any]":
        """What this device is: board, chip, runtime, port, agent (version), firmware (application version), and
        artifact, by which the fleet manager finds out which deltas are worth making.
        """
        facts = self.port.facts()
        facts["agent"] = __version__
        facts["firmware"] = self.version
        facts["artifact"] = Running.artifact
        return facts  # type: ignore[no-any-return]

    def configure(self, config: "Any") -> None:
        """Take over a (changed) configuration: log level and attributes now, `keepalive` at the next restart."""
        self.config = config
        log.configure(config.log_level)
        self.attributes.set(**config.attributes)

    # --- life

    def run(self) -> None:
        """Run until the process ends."""
        asyncio.run(self.start())

    async def start(self) -> None:
        """Connect and serve until cancelled."""
        if MICROPYTHON:
            gc.threshold(_COLLECT_BYTES)  # type: ignore[attr-defined]  # little garbage: large blocks find room
        self._dog = self.port.watchdog(_WATCHDOG_S)
        if exists(self.port.slots_dir):
            # Ends an unconfirmed trial at its deadline, with or without a link.
            from edgeagent.ota.guard import watch

            self._begin(lambda: watch(self))
        for name in ("telemetry", "defender", "image"):
            if getattr(self.config, name, None):
                self.part(name)
        for service in self.services:
            self._begin(service)
        try:
            await self._keep(self._session)
        finally:
            for task in self._tasks:
                task.cancel()

    def _begin(self, function: "Any") -> None:
        self._tasks.append(asyncio.create_task(self._keep(function)))

    async def _keep(self, function: "Any") -> None:
        """Run an internal task until it returns; if it fails, log why and start it again after a while."""
        backoff = Backoff()
        starved = 0
        while True:
            start = clock.ticks()
            try:
                return await function()  # type: ignore[no-any-return]
            except Exception as error:  # a defect must not take the device off the network for good
                text = exc_text(error)
                if not isinstance(error, AgentError):
                    text = traceback_text(error, 400)
            log.error("agent", "%s", text)
            if clock.elapsed_ms(start) >= _STABLE_MS:
                backoff.reset()
                starved = 0
            starved = starved + 1 if "MemoryError" in text or "ALLOC" in text or "NOMEM" in text else 0
            if starved >= _STARVED:
                try:
                    self._runner._job.starved()
                finally:  # whether or not there is a job, and this could be counted
                    self.port.reset()
            left = backoff.next()
            while left > 0:
                self._dog.feed()
                await asyncio.sleep(min(left, 1))
                left -= 1

    # --- one session

    async def identify(self) -> "tuple[str, str, str]":
        """See onboard.py. What it needs is loaded for it, and dropped on boards after it."""
        from edgeagent.onboard import identify

        found = await identify(self)
        del identify
        unload((), self.handlers.resident)
        return found

    def make_client(self, client_id: str, cert: str, key: str, will: "Any" = None) -> Client:
        """A client for an identity: paths of certificate and key. will: see Client."""
        config = self.config
        if not MICROPYTHON:
            from edgeagent.transports import make_client

            return make_client(config, self.port, client_id, cert, key, will)  # type: ignore[no-any-return]
        return Client(
            lambda: self.port.open_stream(config.endpoint, config.port, config.server_hostname, config.ca, cert, key),
            client_id,
            config.keepalive,
            True,
            will,
        )

    async def read(self, client: Client) -> "Any":
        """Receive until the link ends; why it did, as an AgentError."""
        try:
            await client.run()
        except AgentError as error:
            return error

    async def _session(self) -> None:
        """Connect, serve until the link ends, close. Raises AgentError.

        The watchdog is fed here, where a stuck session would be noticed, and not by a task of its own.
        """
        self._dog.feed()
        while self.pause > 0:
            self.pause -= TICK_S
            self._dog.feed()
            await asyncio.sleep(TICK_S)
        gc.collect()
        if not self._runner:
            identity = await self.identify()
            self._dog.feed()
            self.thing_name = identity[0]
            if self.config.presence:
                self._presence = self.config.presence.replace("{thing}", identity[0])
            self.client = self.make_client(*identity, self._presence and (self._presence, "offline"))
            self.requests = Requests(self.client)
            self.attributes.shadow = Shadow(self.requests, self.thing_name)
            runner = Runner(self)
            self._begin(runner.run)
            self._runner = runner  # last: what there was no memory for is made again
        client = self.client
        try:
            await client.connect()
        except TransportError as error:
            from edgeagent.explain import explain

            raise explain(self, error) from None
        reader = asyncio.create_task(self.read(client))
        self.attributes.forget()
        try:
            while client.connected:
                try:
                    if not self.connected.is_set():
                        await self.attributes.shadow.subscribe()
                    await self.attributes.report()
                except Refused as error:  # a policy without shadows must not keep jobs from working
                    log.warning("agent", "shadow: %s", error)
                if not self.connected.is_set():
                    await self._runner.attach()
                    if self._presence:
                        await client.publish(self._presence, "online", 1, True)
                    self.counters["connects"] += 1
                    log.info("agent", "%s connected", self.thing_name)
                    self.connected.set()
                    for function in self.attached:
                        function()
                    gc.collect()
                ticks = TICKS
                while client.connected and ticks:
                    ticks -= 1
                    self._dog.feed()
                    await asyncio.sleep(TICK_S)
            raise await reader
        finally:
            self.connected.clear()
            try:
                if self._presence and client.connected:
                    # DISCONNECT is next, and takes the will back.
                    await client.publish(self._presence, "offline", 0, True)
            finally:
                await client.close()
                reader.cancel()
