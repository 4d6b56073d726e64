# SPDX-License-Identifier: Apache-2.0
"""Measured values: filtered, gathered over time, queued in the outbox and sent in batches. Loaded when first used.

agent.json, "telemetry" (all members optional):
    topic          with `{thing}` for the thing name; default "dt/edgeagent/{thing}/telemetry", AWS's dt/ convention
                   (whitepaper "Designing MQTT Topics for AWS IoT Core"); "$aws/rules/RULE/{thing}" is Basic Ingest
    message_bytes  size a message is filled to, 2048-16384, default 2048; half of it is the buffer in RAM
    every          seconds a record waits for company while there is a link, 1-3600, default 10
    flush          seconds after which a record is durable if it was not delivered, 0-3600, default 30; 0: at once
    rate           messages per second at most, 1-50, default 10: one at a time, so that jobs get their turn
    max_bytes      of the queue in flash, 16384-1073741824, default 131072
    max_records    1000-1000000000, default 100000
    drop           "oldest" | "newest": what gives way when it is full; default "oldest"

Message, QoS 1, JSON: {"thing", "id", "seq", "dropped", "records": [[time, name, value], …]}. time: epoch seconds. The
first record has number `seq`, the next `seq` + 1 and so on. A message may come twice: a receiver keeps the highest
number for each (thing, id) and skips what is not above it. dropped: records that gave way to the bounds so far.
"""

import asyncio
import json

from edgeagent import clock, log, topics
from edgeagent.compat import Any, const
from edgeagent.errors import ConfigError, TransportError
from edgeagent.mqtt.backoff import Backoff
from edgeagent.outbox import Outbox

_RECORD_BYTES = const(512)
_DAY = const(86400)
_NUMBERS = (
    ("message_bytes", 2048, 2048, 16384),
    ("every", 10, 1, 3600),
    ("flush", 30, 0, 3600),
    ("rate", 10, 1, 50),
    ("max_bytes", 131072, 16384, 1 << 30),
    ("max_records", 100000, 1000, 1000000000),
)
_AGGREGATES = ("last", "mean", "min", "max", "sum", "count")


def check(data: Any) -> "dict[str, Any]":
    """The "telemetry" object of agent.json with its defaults. Raises ConfigError naming the member."""
    where = "telemetry"
    if not isinstance(data, dict):
        raise ConfigError(where, "must be an object")
    found = {"topic": topics.TELEMETRY, "drop": "oldest"}
    for row in _NUMBERS:
        found[row[0]] = row[1]  # type: ignore[assignment]
    for name in data:
        if name not in found:
            raise ConfigError(where + "." + name, "is unknown")
        found[name] = data[name]
    for name, _, low, high in _NUMBERS:
        value: Any = found[name]
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(where + "." + name, "must be a whole number from %d to %d" % (low, high))
    topic = found["topic"]
    good = isinstance(topic, str) and 0 < len(topic) <= 256 and "+" not in topic and "#" not in topic
    if not good or (topic[0] == "$" and not topic.startswith(topics.RULES)):
        raise ConfigError(where + ".topic", "must be a topic without wildcards, not a reserved one")
    if found["drop"] not in ("oldest", "newest"):
        raise ConfigError(where + ".drop", "must be oldest or newest")
    return found


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value - value == 0 and value is not True and value is not False


class _Series:
    """A declared series: options, and the window that is open."""

    count = 0  # samples in the window
    sent: Any = None  # the latest record's value
    since = sent_at = 0  # ticks
    total: Any
    low: Any
    high: Any
    last: Any


class Part:
    """The telemetry of one agent. Not for other threads than the loop's."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.settings = settings = check(agent.config.telemetry or {})
        size = settings["message_bytes"]
        self.box = Outbox(
            agent.port.state_dir + "/outbox",
            settings["max_bytes"],
            settings["max_records"],
            size // 2,
            settings["drop"] == "oldest",
        )
        self._series: "dict[str, Any]" = {}
        self._start()

    def series(
        self, name: str, every: int = 0, aggregate: Any = "last", deadband: float = 0, heartbeat: int = 0
    ) -> None:
        """Declare how a series is thinned out before it is stored.

        every: seconds of a window; each gives one record, with the time of its end. 0: each sample is one.
        aggregate: "last", "mean", "min", "max", "sum", "count", or a list of them, which gives {aggregate: value}.
        deadband: a value that differs by less from the latest stored one is left out, though not for longer than
        heartbeat seconds (0: for ever). Raises ConfigError.
        """
        made: Any = _Series()
        made.names = names = [aggregate] if isinstance(aggregate, str) else aggregate
        for one in names:
            if one not in _AGGREGATES:
                raise ConfigError("series " + name, "no aggregate %s" % one)
        if len(names) != 1 and deadband:
            raise ConfigError("series " + name, "deadband needs one aggregate")
        if not (0 <= every <= _DAY and 0 <= heartbeat <= _DAY and deadband >= 0):
            raise ConfigError("series " + name, "every and heartbeat are 0 to %d, deadband from 0" % _DAY)
        made.one = isinstance(aggregate, str)
        made.every = every * 1000
        made.deadband = deadband
        made.heartbeat = heartbeat * 1000
        self._series[name] = made

    def record(self, name: str, value: Any) -> bool:
        """Take a sample: a finite number, text or bool. False, and logged, if it cannot be kept; raises nothing."""
        series = self._series.get(name)
        if not _number(value) and (not isinstance(value, (str, bool)) or (series and series.names != ["last"])):
            log.warning("telemetry", "%s: no value", name)
            return False
        if not series:
            return self._put(name, value)
        if series.count and clock.elapsed_ms(series.since) >= series.every:
            self._close(name, series)
        if not series.count:
            series.since = clock.ticks()
            series.total = 0
            series.low = series.high = value
        series.count += 1
        series.last = value
        if series.names != ["last"]:
            series.total += value
            series.low = min(series.low, value)
            series.high = max(series.high, value)
        return True if series.every else self._close(name, series)

    def _close(self, name: str, series: Any) -> bool:
        """The window is over: store what it gives."""
        total = series.total
        count = series.count
        series.count = 0
        values = (series.last, total / count, series.low, series.high, total, count)
        value: Any = {}
        for one in series.names:
            value[one] = values[_AGGREGATES.index(one)]
        if series.one:
            value = value[series.names[0]]
            sent = series.sent
            if (
                series.deadband
                and _number(sent)
                and _number(value)
                and abs(value - sent) < series.deadband
                and not 0 < series.heartbeat <= clock.elapsed_ms(series.sent_at)
            ):
                return True
        if not self._put(name, value):
            return False
        series.sent = value
        series.sent_at = clock.ticks()
        return True

    def _put(self, name: str, value: Any) -> bool:
        text = json.dumps([clock.now(), name, value], separators=(",", ":")).encode()
        if len(text) > _RECORD_BYTES:
            log.warning("telemetry", "%s: over %d bytes", name, _RECORD_BYTES)
            return False
        if not self.box.append(text):
            return False
        return self.settings["flush"] > 0 or self.box.flush()

    # --- life

    def _start(self) -> None:
        agent = self.agent
        reset = agent.port.reset

        def reset_last() -> None:
            # A restart that was planned costs no record.
            try:
                self.close()
            finally:
                reset()

        agent.port.reset = reset_last
        for service in (self._keep, self._deliver):
            if hasattr(agent, "_dog"):
                agent._begin(service)  # the agent is running already
            else:
                agent.services.append(service)

    def close(self) -> None:
        """End all windows and make everything durable."""
        self.tick(True)
        self.box.flush()

    def tick(self, final: bool = False) -> None:
        """Close the windows that are over (final: all), and flush what is due."""
        for name in self._series:
            series = self._series[name]
            if series.count and (final or clock.elapsed_ms(series.since) >= series.every):
                self._close(name, series)
        if self.box.age() >= self.settings["flush"] * 1000 - 1000:  # the next tick would be late
            self.box.flush()

    async def _keep(self) -> None:
        try:
            while True:
                await asyncio.sleep(1)
                self.tick()
        finally:
            self.close()

    async def _deliver(self) -> None:
        """Send while there is a link, one message at a time: it keeps the order and leaves the link to jobs."""
        agent = self.agent
        box = self.box
        settings = self.settings
        backoff = Backoff()
        while True:
            await agent.connected.wait()
            wait = 1.0
            if box.segments or box.buffered * 2 >= box.buffer or box.age() >= settings["every"] * 1000:
                found = box.take(settings["message_bytes"] - 128)
                if found:
                    number, count, text = found
                    head = '{"thing":"%s","id":"%s","seq":%d,"dropped":%d,"records":['
                    data = (head % (agent.thing_name, box.id, number, box.dropped)).encode() + text + b"]}"
                    del found, text
                    try:
                        await agent.client.publish(settings["topic"].replace("{thing}", agent.thing_name), data)
                        box.ack(number + count)
                        backoff.reset()
                        wait = 1 / settings["rate"]
                    except TransportError as error:
                        # A policy that denies the topic costs the link each time: jobs need longer and longer turns.
                        log.warning("telemetry", "%s", error)
                        wait = backoff.next()
                    del data
            while wait > 0:  # of the time with a link
                await asyncio.sleep(min(wait, 1))
                await agent.connected.wait()
                wait -= 1
