# SPDX-License-Identifier: Apache-2.0
"""AWS IoT Device Defender: reports of device metrics. Loaded if agent.json has "defender".

"defender" in agent.json (both members optional):
    interval  seconds between reports, 300-86400, default 300 (the service throttles what comes more often)
    metrics   names of the custom metrics to send; default all of: memory_free, memory_used, memory_flash_free and what
              else the port's memory() says, connects and the agent's other counters, boots where the port counts them.
              Attributes of the device (numbers and texts) may be named too.
On AWS a custom metric must have been created in the account. Hosts add the standard metrics (ports/linux/metrics.py).
Source: aws-iot-protocol.md section 11.
"""

import asyncio

from edgeagent import clock, log, topics
from edgeagent.compat import Any
from edgeagent.errors import AgentError, ConfigError, Refused


def check(data: Any) -> "tuple[int, list[str] | None]":
    """(interval, names) of the "defender" object of agent.json. Raises ConfigError naming the member."""
    if not isinstance(data, dict):
        raise ConfigError("defender", "must be an object")
    for name in data:
        if name not in ("interval", "metrics"):
            raise ConfigError("defender." + name, "is unknown")
    interval = data.get("interval", 300)
    if type(interval) is not int or not 300 <= interval <= 86400:
        raise ConfigError("defender.interval", "must be a whole number from 300 to 86400")
    names = data.get("metrics")
    if names is not None:
        if not isinstance(names, list):
            raise ConfigError("defender.metrics", "must be a list of names")
        for name in names:
            if not isinstance(name, str):
                raise ConfigError("defender.metrics", "must be a list of names")
    return interval, names


class Part:
    """The reports of one agent."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.interval, self._names = check(agent.config.defender)
        self._id = 0
        if hasattr(agent, "_dog"):
            agent._begin(self._run)  # the agent is running already
        else:
            agent.services.append(self._run)

    def report(self) -> "dict[str, Any]":
        """The next report. Its id is the time in seconds, and always above the one before."""
        self._id = max(self._id + 1, clock.now())
        report = {"header": {"report_id": self._id, "version": "1.0"}, "custom_metrics": self._custom()}
        port = self.agent.port
        if hasattr(port, "metrics"):
            report["metrics"] = port.metrics()
        return report

    def _custom(self) -> "dict[str, Any]":
        agent = self.agent
        values = {}
        memory = agent.port.memory()
        for name in memory:
            values["memory_" + name] = memory[name]
        values.update(agent.counters)
        kind, _, count = agent.port.boot_id().partition("-")
        if kind == "boot" and count.isdigit():
            values["boots"] = int(count)
        names = self._names
        if names is None:
            names = list(values)
        else:
            attributes = agent.attributes.full()
            attributes.update(values)
            values = attributes
        found: "dict[str, Any]" = {}
        for name in names:
            value = values.get(name)
            if isinstance(value, str):
                found[name] = [{"string_list": [value]}]
            elif isinstance(value, (int, float)) and value is not True and value is not False:
                found[name] = [{"number": value}]
        return found

    async def _run(self) -> None:
        agent = self.agent
        client = None
        await agent.connected.wait()
        topic = topics.defender(agent.thing_name)
        while True:
            await agent.connected.wait()
            wait = self.interval
            try:
                if client != agent.counters["connects"]:  # a new session has no subscriptions
                    await agent.requests.subscribe([topic + topics.ACCEPTED, topic + topics.REJECTED])
                    client = agent.counters["connects"]
                await agent.requests.call(topic, self.report(), token=False)
            except Refused as error:
                details = error.body.get("statusDetails")
                code = details.get("ErrorCode") if isinstance(details, dict) else error.code
                log.warning("defender", "report refused: %s", code)
                if code == "Throttled":
                    wait *= 2
            except AgentError as error:
                log.warning("defender", "%s", error)
            await asyncio.sleep(wait)
