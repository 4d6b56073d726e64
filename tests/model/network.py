# SPDX-License-Identifier: Apache-2.0
"""The link between the agent's MQTT client and the service: it loses, doubles, delays, reorders, and breaks.

The client is the agent's own, on a stream that hands whole packets to the network. The broker here has clean sessions,
answers the requester directly, and delivers notifications to subscribers as QoS 1 does: late, doubled and out of order,
but lost only together with the link. Requests (QoS 0) and their answers may be lost any time.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from edgeagent import topics
from edgeagent.errors import TransportError
from edgeagent.mqtt import packet
from edgefleet.messages import Message
from tests.model.service import THING, Service
from tests.model.virtual import Time

_JOBS = topics.jobs(THING, "")
_OVER = ("InvalidStateTransition", "TerminalStateReached", "ResourceNotFound")
# Answers to CONNECT and PINGREQ, and the acknowledgements of the link itself, are as reliable as TCP.
_CONNECT, _PUBLISH, _SUBSCRIBE, _PINGREQ, _DISCONNECT = 1, 3, 8, 12, 14


class _Later:
    """Awaitable: a step of the loop, then `act`. Not a coroutine, which would complain if the device dies before."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        self._act()


class Stream:
    """Reader and writer of one connection, as the client sees them."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._in = bytearray()
        self._out = bytearray()
        self._more = asyncio.Event()
        self._broken = False

    async def readexactly(self, size: int) -> bytes:
        while len(self._in) < size:
            if self._broken:
                raise asyncio.IncompleteReadError(b"", size)
            self._more.clear()
            await self._more.wait()
        data = bytes(self._in[:size])
        del self._in[:size]
        return data

    def write(self, data: Any) -> None:
        self._out += data

    def drain(self) -> _Later:
        return _Later(self._flush)

    def wait_closed(self) -> _Later:
        return _Later(lambda: None)

    def _flush(self) -> None:
        if self._broken:
            raise ConnectionResetError
        while len(self._out) > 1:
            at = 1
            while self._out[at] > 127:
                at += 1
            end = at + 1 + sum((self._out[n] & 127) << 7 * (n - 1) for n in range(1, at + 1))
            if len(self._out) < end:
                break
            data = bytes(self._out[:end])
            del self._out[:end]
            self._network.sent(self, data[0], data[at + 1 :])

    def close(self) -> None:
        self._broken = True
        self._more.set()
        self._network.closed(self)

    def arrived(self, data: bytes) -> None:
        self._in += data
        self._more.set()

    def reset(self) -> None:
        """The device's end learns that the link is gone."""
        self._broken = True
        self._more.set()


class Network:
    """`up`: connections can be made. `loss`, `double`, `late`: chances of a message (late: up to 40 s)."""

    def __init__(self, time: Time, service: Service, rng: random.Random, trace: Callable[..., None]) -> None:
        self._time = time
        self._service = service
        self._rng = rng
        self._trace = trace
        self.up = True
        self.loss = self.double = self.late = 0.0
        self._stream: Stream | None = None  # of the session that the broker has
        self._filters: list[str] = []
        self.requests: list[float] = []  # when the device sent each of them
        self.uploads: dict[str, set[tuple[int, int]]] = {}  # object -> (message, messages)
        self.on_packet: Callable[[], None] = lambda: None
        self.on_over: Callable[[str, int | None, str], None] = lambda job, number, token: None
        service.notify = self._notify

    # --- the link

    async def open_stream(self) -> tuple[Stream, Stream]:
        """For edgeagent.mqtt.client.Client."""
        await asyncio.sleep(self._rng.uniform(0.1, 3))
        if not self.up:
            await asyncio.sleep(self._rng.uniform(0, 20))
            raise TransportError("no route")
        self._stream = stream = Stream(self)
        self._filters = []
        return stream, stream

    def broken(self, notice: float) -> None:
        """The session is gone; the device notices `notice` seconds later, or by itself."""
        stream = self._stream
        if stream:
            self._stream = None
            self._trace("link broken, noticed in %.1f s", notice)
            self._time.after(notice, stream.reset)

    def closed(self, stream: Stream | None = None) -> None:
        """The device ended the connection; None: by losing power."""
        if stream is None or stream is self._stream:
            self._stream = None

    def _delay(self) -> float:
        return self._rng.uniform(0, 40) if self._rng.random() < self.late else self._rng.uniform(0.02, 0.2)

    def _copies(self, may_be_lost: bool) -> int:
        if may_be_lost and self._rng.random() < self.loss:
            return 0
        return 2 if self._rng.random() < self.double else 1

    # --- from the device

    def sent(self, stream: Stream, head: int, body: bytes) -> None:
        """A packet left the device."""
        kind = head >> 4
        request = kind == _PUBLISH and not head & 6
        if request:
            self.requests.append(self._time.now)
        if stream is self._stream:  # else into a dead socket
            if kind == _CONNECT:
                self._deliver(stream, b"\x20\2\0\0", 0.05)
            elif kind == _PINGREQ:
                self._deliver(stream, b"\xd0\0", 0.05)
            elif kind in (_PUBLISH, _SUBSCRIBE):
                for _ in range(self._copies(request)):
                    self._time.after(self._delay(), lambda: self._arrived(stream, head, body))
        if kind in (_PUBLISH, _SUBSCRIBE):
            self.on_packet()

    def _arrived(self, stream: Stream, head: int, body: bytes) -> None:
        if stream is not self._stream and self._rng.random() < 0.5:
            return  # it was still in the device when the link broke
        if head >> 4 == _SUBSCRIBE:
            at = 2
            granted = b""
            while at < len(body):
                size = body[at] << 8 | body[at + 1]
                if stream is self._stream:
                    self._filters.append(body[at + 2 : at + 2 + size].decode())
                at += size + 3
                granted += b"\1"
            self._deliver(stream, b"\x90" + bytes((2 + len(granted),)) + body[:2] + granted, self._delay())
            return
        topic, number, at = packet.decode_publish(head, body)
        if topic.startswith(_JOBS):
            self._trace("> %s %s", topic[len(_JOBS) :], body[at:])
            reply = self._service.request(topic, body[at:])
            for _ in range(self._copies(True)):
                self._answer(stream, reply, json.loads(body[at:]))
        else:
            name, part, parts = topic.split("/")[-3:]
            self.uploads.setdefault(name, set()).add((int(part), int(parts)))
        if number:
            self._deliver(stream, b"\x40\2" + packet.number(number), self._delay())

    # --- to the device

    def _answer(self, stream: Stream, reply: Message, request: dict[str, Any]) -> None:
        def arrive() -> None:
            rest, outcome = reply.topic[len(_JOBS) :].rsplit("/", 1)
            answer = json.loads(reply.payload)
            self._trace("< %s %s %s", rest, outcome, reply.payload[:200])
            if answer.get("code") in _OVER:
                self.on_over(rest.split("/")[0], request.get("executionNumber"), answer.get("clientToken"))

        self._deliver(stream, self._publish(reply), self._delay(), arrive)

    def _notify(self, message: Message) -> None:
        stream = self._stream
        if stream and any(topics.matches(name, message.topic) for name in self._filters):
            for _ in range(self._copies(False)):
                self._deliver(stream, self._publish(message), self._delay(), lambda: self._trace("< notify-next"))

    @staticmethod
    def _publish(message: Message) -> bytes:
        # As QoS 0: nobody here would look at the acknowledgement of the device.
        return packet.publish(message.topic, len(message.payload), 0, False) + message.payload

    def _deliver(self, stream: Stream, data: bytes, delay: float, arrive: Callable[[], None] | None = None) -> None:
        def deliver() -> None:
            if stream is self._stream:
                if arrive:
                    arrive()
                stream.arrived(data)

        self._time.after(delay, deliver)
