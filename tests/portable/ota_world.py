# SPDX-License-Identifier: Apache-2.0
"""A stream service and an agent without a network, for update tests on both runtimes.

`Service` takes the place of the MQTT client: it answers stream requests as aws-iot-protocol.md section 10 says, from a
task of its own, and can be told to misbehave.
"""

import asyncio
import binascii
import json

from edgeagent import topics
from edgeagent.agent import Agent as RealAgent
from edgeagent.errors import TransportError
from tests.portable.ota_support import FACTS


def cbor(value):
    """A flat map as CBOR, in the shortest form (RFC 8949, 3)."""
    if isinstance(value, dict):
        return b"".join([head(5, len(value))] + [cbor(name) + cbor(value[name]) for name in value])
    if isinstance(value, str):
        return head(3, len(value)) + value.encode()
    if isinstance(value, int):
        return head(0, value)
    if value is None:
        return b"\xf6"
    return head(2, len(value)) + bytes(value)


def head(kind, value):
    if value < 24:
        return bytes([kind << 5 | value])
    for code, size in ((24, 1), (25, 2), (26, 4)):
        if value < 1 << 8 * size:
            return bytes([kind << 5 | code]) + value.to_bytes(size, "big")
    raise ValueError(value)


def uncbor(data):
    """What the agent asks, from CBOR: a map of texts and whole numbers."""
    items = []
    at = 1
    if data[0] >> 5 != 5:
        raise ValueError("not a map")
    if data[0] & 31 > 23:
        at += 1 << (data[0] & 31) - 24
    while at < len(data):
        kind, value = data[at] >> 5, data[at] & 31
        at += 1
        if value > 23:
            size = 1 << value - 24
            value = int.from_bytes(data[at : at + size], "big")
            at += size
        if kind == 3:
            items.append(data[at : at + value].decode())
            at += value
        else:
            items.append(value)
    return {items[n]: items[n + 1] for n in range(len(items) - 1) if n % 2 == 0}


class Service:
    def __init__(self, files):
        self.files = files
        self.connected = True
        self.handlers = []
        self.oversized = []
        self.filters = []
        self.requests = []
        self.subscribed = 0
        self.sent = 0  # data messages
        self.bytes = 0  # of payload files delivered
        # How to misbehave:
        self.order = None  # function of the list of blocks to send
        self.wrap = None  # function of a data message: messages to send instead
        self.raw = None  # bytes to send instead of JSON
        self.reject = None
        self.reject_once = False
        self.mute = False
        self.deny = None
        self.drop_after = None  # data messages until the link is lost
        self.stays_down = False
        self.encode = lambda message: json.dumps(message).encode()
        self.encode_cbor = cbor
        self.limit = None  # data messages until the service falls silent and sets `reached`
        self.reached = None
        self._queue = []
        self._wake = None
        self._task = None

    # what the agent's MQTT client offers

    def on(self, topic_filter, handler):
        token = (topic_filter, handler)
        self.handlers.append(token)
        return token

    def off(self, token):
        self.handlers.remove(token)

    async def subscribe(self, filters):
        self._up()
        if self.deny:
            raise self.deny
        self.subscribed += 1
        self.filters = [name for name, _ in filters]

    async def unsubscribe(self, filters):
        self._up()
        self.filters = [name for name in self.filters if name not in filters]

    async def publish(self, topic, payload, qos=1, retain=False):
        self._up()
        self._queue.append((topic, payload))
        self._wake.set()

    def _up(self):
        if not self.connected:
            raise TransportError("not connected")

    # the service

    def start(self):
        self._wake = asyncio.Event()
        self.reached = asyncio.Event()
        self._task = asyncio.create_task(self._serve())

    def stop(self):
        self._task.cancel()

    async def during(self, work):
        """The outcome of a coroutine that has the service."""
        self.start()
        try:
            return await work
        finally:
            self.stop()

    async def until(self, count, work):
        """Run a coroutine until `count` data messages were sent, then cancel it, as a stopping agent does."""
        self.start()
        self.limit = count
        task = asyncio.create_task(work)
        await self.reached.wait()
        while not task.done():
            task.cancel()  # asyncio of Python 3.11 may lose one
            await asyncio.sleep(0)
        try:
            await task
        except asyncio.CancelledError:
            pass
        self.stop()

    async def _serve(self):
        while True:
            while self._queue:
                topic, payload = self._queue.pop(0)
                form = topic[topic.rfind("/") + 1 :]
                await self._answer(topic, uncbor(payload) if form == "cbor" else json.loads(payload), form)
            self._wake.clear()
            await self._wake.wait()

    async def _answer(self, topic, request, form):
        base = topic[: topic.rfind("/get/")]
        self.requests.append(request)
        if self.mute:
            return
        if self.reject is not None:
            body = dict(self.reject)
            body.setdefault("c", request["c"])
            if self.reject_once:
                self.reject = None
            self.deliver(base + "/rejected/" + form, cbor(body) if form == "cbor" else json.dumps(body).encode())
            if body["c"] == request["c"]:
                return
        data = self.files[request["f"]]
        size = request["l"]
        blocks = [n for n in range(request["o"], request["o"] + request["n"]) if n * size < len(data)]
        for number in self.order(blocks) if self.order else blocks:
            part = data[number * size : (number + 1) * size]
            body = {"c": request["c"], "f": request["f"], "l": len(part), "i": number}
            body["p"] = part if form == "cbor" else binascii.b2a_base64(part).decode().strip()
            for message in self.wrap(body) if self.wrap else [body]:
                if self.drop_after is not None:
                    if self.drop_after == 0:
                        return await self._drop()
                    self.drop_after -= 1
                if self.limit is not None and self.sent >= self.limit:
                    self.mute = True
                    self.reached.set()
                    return None
                self.sent += 1
                self.bytes += len(part) if request["f"] == 2 else 0
                encode = self.encode_cbor if form == "cbor" else self.encode
                self.deliver(base + "/data/" + form, encode(message) if self.raw is None else self.raw)
                await asyncio.sleep(0)
        return None

    async def _drop(self):
        self.drop_after = None
        self.connected = False
        self.filters = []
        self._queue = []
        if not self.stays_down:
            await asyncio.sleep(0.06)
            self.connected = True

    def deliver(self, topic, payload):
        for name in self.filters:
            if topics.matches(name, topic):
                for topic_filter, handler in list(self.handlers):
                    if topic_filter == name:
                        handler(topic, payload)


class Reset(BaseException):
    """The device restarts here: nothing after it runs, as with a real reset."""


class Config:
    trust = "trust.json"
    confirm_within = 60
    update_window = None
    device_configuration = {}


class Agent:
    """What handlers see of the agent. As its own port: slots_dir, facts(), reset()."""

    def __init__(self, service, root="", version="1.0.0"):
        self.client = service
        self.config_path = None
        self.hooks = {}
        self.thing_name = "thing"
        self.config = Config()
        self.config.update_window = None
        self.port = self
        self.slots_dir = root
        self.version = version
        self.health = (True, "")
        self.resets = 0

    def facts(self):
        return FACTS

    def reset(self):
        raise Reset

    async def healthy(self):
        return self.health

    ask = RealAgent.ask


class Job:
    """The context that the runner gives to a handler."""

    def __init__(self, agent, document, job_id="job", execution=1):
        self.queued = 1
        self.agent = agent
        self.document = document
        self.id = job_id
        self.execution = execution
        self.revoked = False
        self.reports = []
        self.data = {}
        self.accepts = True
        self.ended_by_service = False

    async def progress(self, percent=None, **details):
        if self.ended_by_service:
            self.revoked = True
            raise asyncio.CancelledError
        self.reports.append((percent, details))
        return self.accepts

    def checkpoint(self, **data):
        self.data.update(data)

    def reset(self, reason):
        self.agent.port.reset()
