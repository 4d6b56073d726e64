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

from edgeagent import __version__, clock, compat, log
from edgeagent.attributes import Attributes
from edgeagent.compat import Any, const
from edgeagent.errors import AgentError, Refused, TransportError
from edgeagent.jobs.registry import Handlers, unload
from edgeagent.jobs.runner import Runner
from edgeagent.mqtt.backoff import Backoff
from edgeagent.mqtt.client import Client
from edgeagent.mqtt.rpc import Requests
from edgeagent.ports import detect
from edgeagent.shadow import Shadow

_WATCHDOG_S = const(120)  # longer than any one bounded step between two feeds (provisioning: 75 s)
_TICK_S = const(5)
_REPORT_MS = const(60000)  # how often changed attributes are looked for
_STABLE_MS = const(30000)  # a link that lasted so long starts the back-off anew
_COLLECT_BYTES = const(8192)
_CHECK_S = const(30)  # for one application health check


class Agent:
    """One device. Attributes for handlers: config, port, client, requests, thing_name, attributes, handlers,
    counters, and `connected`, an asyncio.Event that is set while the service can be reached.
    """

    def __init__(
        self, config: "Any", port: "Any" = None, version: str = "0.0.0", config_path: "str | None" = None
    ) -> None:
        """config: a Config. port: default this runtime's. version: of the application, reported as `firmware`."""
        log.configure(config.log_level)
        self.config = config
        self.config_path = config_path
        self.port = port or detect(config)
        self.version = version
        self.thing_name = ""
        self.client: "Client | None" = None
        self.requests: "Requests | None" = None
        self.connected = asyncio.Event()
        self.counters = {"connects": 0}
        self.handlers = Handlers()
        self.attributes = Attributes()
        self.attributes.set(**self.facts())
        self.attributes.set(**config.attributes)
        self._checks: "list[Any]" = []
        self._down = asyncio.Event()
        self._dog: "Any" = None
        self._runner: "Runner | None" = None

    @classmethod
    def from_file(cls, path: "str | None" = None, version: str = "0.0.0") -> "Agent":
        """path: default /agent.json on boards, EDGEAGENT_CONFIG or agent.json elsewhere. Raises ConfigError."""
        if path is None:
            path = "/agent.json" if compat.MICROPYTHON else os.environ.get("EDGEAGENT_CONFIG", "agent.json")
        from edgeagent.config import load

        config = load(path)
        del load
        unload(["edgeagent.config"])
        return cls(config, None, version, path)

    # --- what an application declares

    def job(self, operation: str, resume: bool = False) -> "Any":
        """Decorator: `async def fn(job)` does the job operation. resume: see JobContext.reset."""

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

    def attribute(self, name: str, value: "Any") -> None:
        """Report a value, or what a function returns, in the shadow. Raises ConfigError naming the attribute."""
        self.attributes.register(name, value)

    async def healthy(self) -> "tuple[bool, str]":
        """(True, "") if all health checks pass, else (False, reason)."""
        for check in self._checks:
            name = getattr(check, "__name__", "health check")
            try:
                result = check()
                if hasattr(result, "send"):
                    result = await asyncio.wait_for(result, _CHECK_S)
            except asyncio.TimeoutError:
                return False, "%s: no answer within %d s" % (name, _CHECK_S)
            except Exception as error:  # the application's
                return False, "%s: %s" % (name, compat.exc_text(error))
            if isinstance(result, tuple) and not result[0]:
                return False, "%s: %s" % (name, result[1])
            if result is False:
                return False, "%s: returned False" % name
        return True, ""

    def facts(self) -> "dict[str, Any]":
        """What this device is: board, chip, runtime, port, agent (version), firmware (application version)."""
        facts = dict(self.port.facts())
        facts["agent"] = __version__
        facts["firmware"] = self.version
        return facts

    def configure(self, config: "Any") -> None:
        """Take over a changed configuration: log level and attributes now, `keepalive` at the next restart."""
        self.config = config
        log.configure(config.log_level)
        self.attributes.set(**config.attributes)

    # --- life

    def run(self) -> None:
        """Run until the process ends."""
        asyncio.run(self.start())

    async def start(self) -> None:
        """Connect and serve until cancelled."""
        if compat.MICROPYTHON:
            gc.threshold(_COLLECT_BYTES)  # type: ignore[attr-defined]  # little garbage: large blocks find room
        self._dog = self.port.watchdog(_WATCHDOG_S)
        self._runner = Runner(self)
        tasks = [asyncio.create_task(self._keep("jobs", self._runner.run))]
        if compat.exists(self.port.slots_dir + "/state.json"):
            tasks.append(asyncio.create_task(self._keep("trial", self._guard)))
        backoff = Backoff()
        try:
            while True:
                start = clock.ticks()
                try:
                    await self._session()
                except AgentError as error:
                    log.warning("agent", "%s", error)
                except Exception as error:  # a defect must not take the device off the network for good
                    log.error("agent", "%s", compat.traceback_text(error, 400))
                if clock.elapsed_ms(start) >= _STABLE_MS:
                    backoff.reset()
                await self._pause(backoff.next())
        finally:
            for task in tasks:
                task.cancel()

    async def _keep(self, name: str, function: "Any") -> None:
        """Run an internal task; if it dies, log why, renew the session and start it again."""
        backoff = Backoff()
        while True:
            try:
                await function()
                return
            except Exception as error:
                log.error("agent", "%s died: %s", name, compat.traceback_text(error, 400))
            self._down.set()
            await asyncio.sleep(backoff.next())

    async def _guard(self) -> None:
        """Roll back an unconfirmed trial at its deadline, with or without a link."""
        from edgeagent.ota import trial

        if trial.status(self.port.slots_dir)["state"] == "trial":
            from edgeagent.ota import guard

            await guard.watch(self)

    async def _pause(self, seconds: float) -> None:
        start = clock.ticks()
        left = seconds
        while left > 0:
            self._dog.feed()
            await asyncio.sleep(min(left, 1))
            left = seconds - clock.elapsed_ms(start) / 1000

    # --- one session

    async def identify(self) -> "tuple[str, str, str]":
        """(thing name, certificate path, key path): configured, stored, or got by claim and stored. Raises AgentError.

        What it needs is loaded for it, and dropped on boards after it.
        """
        config = self.config
        if config.thing_name and config.certificate and config.key:
            return config.thing_name, config.certificate, config.key
        from edgeagent.identity import Identity

        identity = Identity(self.port.state_dir, self.port.pem)
        found = identity.load()
        if found is None:
            from edgeagent.onboard import onboard

            await onboard(config, self.port, identity, self._client)
            found = identity.load()
            if found is None:
                raise TransportError("the new identity cannot be read back")
            del onboard
        del identity, Identity
        unload(["edgeagent.onboard", "edgeagent.provisioning", "edgeagent.identity"])
        return found

    def _client(self, client_id: str, certificate: str, key: str) -> Client:
        config = self.config

        async def open_stream() -> "Any":
            return await self.port.open_stream(
                config.endpoint, config.port, config.server_hostname, config.ca, certificate, key
            )

        return Client(open_stream, client_id, config.keepalive)

    async def _session(self) -> None:
        """Connect, serve until the link ends, close. Raises AgentError."""
        self._dog.feed()
        gc.collect()
        if self.client is None:
            identity = await self.identify()
            self._dog.feed()
            self.thing_name = identity[0]
            self.client = self._client(*identity)
            self.requests = Requests(self.client)
            self.attributes.shadow = Shadow(self.requests, self.thing_name)
        await self.client.connect()
        self._down.clear()
        reader = asyncio.create_task(self._read(self.client))
        try:
            await self._online()
        finally:
            self.connected.clear()
            await self.client.close()
            reader.cancel()

    async def _online(self) -> None:
        self._dog.feed()
        self.attributes.forget()
        try:
            await self.attributes.shadow.subscribe()  # type: ignore[union-attr]
        except Refused as error:  # a policy without shadows must not keep jobs from working
            log.warning("agent", "shadow: %s", error)
        await self._report()
        await self._runner.attach()  # type: ignore[union-attr]
        self.counters["connects"] += 1
        log.info("agent", "%s connected to %s:%d", self.thing_name, self.config.endpoint, self.config.port)
        self.connected.set()
        gc.collect()
        reported = clock.ticks()
        # The watchdog is fed here, where a stuck session would be noticed, and not by a task of its own.
        while not self._down.is_set():
            try:
                await asyncio.wait_for(self._down.wait(), _TICK_S)
            except asyncio.TimeoutError:
                pass
            self._dog.feed()
            if clock.elapsed_ms(reported) >= _REPORT_MS:
                reported = clock.ticks()
                await self._report()

    async def _report(self) -> None:
        try:
            await self.attributes.report()
        except Refused as error:
            log.warning("agent", "attributes: %s", error)

    async def _read(self, client: Client) -> None:
        try:
            await client.run()
        except AgentError as error:
            log.warning("agent", "link: %s", error)
        finally:
            self.connected.clear()
            self._down.set()
