# SPDX-License-Identifier: Apache-2.0
"""What the transports of CPython share: handlers, waiting callers, the receive cap, the life of a link.

A transport looks and behaves like edgeagent.mqtt.client.Client; its docstring is the contract, and
tests/device/transport_contract.py holds all of them to it. A subclass brings a library's session: it overrides the
methods of the second half, and calls `_established`, `_fail`, `_arrived` and `done` from the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from edgeagent import log, topics
from edgeagent.compat import exc_text
from edgeagent.errors import AgentError, Refused, TransportError
from edgeagent.limits import LIMITS

DRAIN_LIMIT = 262144  # bytes of a packet, as in mqtt/client.py: above twice AWS's largest payload the link ends
IN_FLIGHT = 8  # calls at a time, as in mqtt/client.py
SESSION_S = 604800  # MQTT 5 wants a number for "keep my session"; AWS IoT keeps none longer than a week
_FILTERS = 8  # aws-iot-protocol.md 2.4: filters in one SUBSCRIBE
# MQTT 5 reason code -> MQTT 3.1.1 return code of the same meaning, so that operators meet one name for one cause.
_CONNACK = {132: 1, 133: 2, 136: 3, 134: 4, 135: 5}

Handler = Callable[[str, bytearray], Any]


def refused(code: int) -> Refused:
    """The error of a CONNACK. code: of MQTT 3.1.1 or MQTT 5."""
    return Refused(f"CONNACK_{_CONNACK.get(code, code)}", "refused")


class Message(NamedTuple):
    """A PUBLISH on its way to the handlers. settle(handled): told once, in the event loop; it acknowledges."""

    topic: str
    payload: bytes
    qos: int
    settle: Callable[[bool], None]


class _Exchange(asyncio.Event):
    """A call that waits for `done`. kept: the next link may still settle it."""

    def __init__(self, key: int | str, start: Callable[[int | str], None], kept: bool) -> None:
        super().__init__()
        self.key = key
        self.start = start
        self.kept = kept
        self.answer: Any = None


class Transport:
    """See the module. One link at a time; handlers stay registered over reconnects."""

    WRITE_S = 10  # how long the server may not read

    def __init__(self, keepalive: int, clean: bool) -> None:
        """keepalive: seconds until a silent link is given up. clean: no session outlives the link."""
        self.keepalive = keepalive
        self.clean = clean
        self.connected = False
        self.oversized: list[Callable[[str, int], None]] = []
        self._error: AgentError | None = TransportError("not connected")  # None while there is a link
        self._ended = asyncio.Event()
        self._ended.set()
        self._hello: asyncio.Future[bool] | None = None  # while connecting: session present
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._handlers: list[tuple[str, Handler]] = []
        self._open: list[_Exchange] = []  # in order of sending
        self._number = 0

    # --- life of a link

    async def connect(self) -> bool:
        """As Client.connect."""
        self._hello = hello = asyncio.get_running_loop().create_future()
        self._inbox = asyncio.Queue()
        try:
            async with asyncio.timeout(LIMITS.CONNECT_S):
                await self._dial()
                present: bool = await hello
            if self._error:  # and lost again at once
                raise self._error
            return present
        except Exception as error:
            self._hello = self._error = None
            self._fail(error)
            raise self._reason() from None
        finally:
            self._hello = None
            if not hello.cancel() and not hello.cancelled():
                hello.exception()  # seen, whoever was faster
            if not self.connected:
                await self._shut()

    async def run(self) -> None:
        """As Client.run."""
        reader = asyncio.create_task(self._read())
        try:
            while not self._ended.is_set():  # not `_error`: close() sets it before it says DISCONNECT
                try:
                    async with asyncio.timeout(min(self.keepalive / 8, 5)):
                        await self._ended.wait()
                except TimeoutError:
                    self._tick()
            raise self._reason()
        finally:
            self._fail(TransportError("closed"))
            reader.cancel()
            await self._shut()

    async def close(self) -> None:
        """As Client.close."""
        error = TransportError("closed")
        self._error = self._error or error
        if self.connected:
            await self._farewell()
        self._fail(error, True)
        await self._shut()

    def _reason(self) -> AgentError:
        return self._error or TransportError("not connected")

    def _established(self, present: bool) -> None:
        """The server has accepted the session."""
        if not self._hello or self._hello.done():
            return
        self._ended.clear()
        self._error = None
        self.connected = True
        self._hello.set_result(present)
        for entry in list(self._open):  # publishes of the session before
            if present:
                self._again(entry)
            else:
                self.done(entry.key, TransportError("session lost"))

    def _fail(self, error: Exception, final: bool = False) -> None:
        """The link is over (the first reason counts)."""
        if not isinstance(error, AgentError):
            error = TransportError("no answer in time" if isinstance(error, TimeoutError) else self._explain(error))
        if self._hello and not self._hello.done():
            self._hello.set_exception(error)
            return
        self._error = self._error or error
        self.connected = False
        self._ended.set()
        for entry in list(self._open):
            if final or not entry.kept:
                self.done(entry.key, self._error)

    def _explain(self, error: Exception) -> str:
        return "link: " + exc_text(error)

    # --- receiving

    def on(self, topic: str, handler: Handler) -> Any:
        """As Client.on."""
        token = (topic, handler)
        self._handlers.append(token)
        return token

    def off(self, token: Any) -> None:
        """As Client.off."""
        if token in self._handlers:
            self._handlers.remove(token)

    def _arrived(self, message: Message) -> None:
        self._inbox.put_nowait(message)

    async def _read(self) -> None:
        while True:
            message = await self._inbox.get()
            message.settle(await self._handle(message))
            if self._inbox.empty():
                self._resume()

    async def _handle(self, message: Message) -> bool:
        """False: a handler failed, and the message is not to be acknowledged."""
        topic = message.topic
        size = len(topic.encode()) + 2 + 2 * message.qos + len(message.payload)  # as MQTT 3.1.1 counts a PUBLISH
        handlers: list[Callable[[str, Any], Any]]
        what: bytearray | int
        if size > LIMITS.MQTT_PACKET:
            log.warning("mqtt", "%s: dropped %d bytes", topic, size)
            handlers, what = list(self.oversized), size
        else:
            handlers = [handler for name, handler in self._handlers if topics.matches(name, topic)]
            what = bytearray(message.payload)
        handled = True
        for handler in handlers:
            try:
                result = handler(topic, what)
                if hasattr(result, "send"):
                    await result
            except Exception as error:  # the application's; the link is not to blame
                log.error("mqtt", "%s: %s", topic, exc_text(error))
                handled = False
        return handled

    # --- sending

    async def publish(
        self, topic: str, payload: str | bytes | bytearray | memoryview, qos: int = 1, retain: bool = False
    ) -> None:
        """As Client.publish."""
        if not topic or "+" in topic or "#" in topic or qos > 1:
            raise ValueError(topic)
        data = payload.encode() if isinstance(payload, str) else bytes(payload)

        def start(key: int | str) -> None:
            self._publish(key, topic, data, qos, retain)

        if qos:
            await self._exchange(self._next(), start, None, not self.clean)
            return
        try:
            await self._exchange(self._next(), start, self.WRITE_S, urgent=True)
        except TransportError:
            self._fail(TransportError("link: the server does not read"))
            raise self._reason() from None

    async def subscribe(self, filters: list[Any]) -> None:
        """As Client.subscribe."""
        pairs = [(name, 1) if isinstance(name, str) else (str(name[0]), int(name[1])) for name in filters]
        for n in range(0, len(pairs), _FILTERS):
            some = pairs[n : n + _FILTERS]
            codes = await self._exchange(self._next(), lambda key, some=some: self._subscribe(key, some))  # type: ignore[misc]
            for pair, code in zip(some, codes, strict=False):
                if code > 1:
                    raise Refused("SUBACK_128", pair[0])

    async def unsubscribe(self, filters: list[str]) -> None:
        """As Client.unsubscribe."""
        for n in range(0, len(filters), _FILTERS):
            some = filters[n : n + _FILTERS]
            await self._exchange(self._next(), lambda key, some=some: self._unsubscribe(key, some))  # type: ignore[misc]

    async def request(self, topic: str, data: bytes, key: str, seconds: float | None = None) -> Any:
        """As Client.request."""
        return await self._exchange(key, lambda _: self._publish(None, topic, data, 0, False), seconds)

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _exchange(
        self,
        key: int | str,
        start: Callable[[int | str], None],
        seconds: float | None = None,
        kept: bool = False,
        urgent: bool = False,
    ) -> Any:
        """As Client.exchange. start(key) sends. urgent: it does not wait for its turn (it needs no answer)."""
        while not urgent and len(self._open) >= IN_FLIGHT:
            await self._open[0].wait()  # ends: each has its time-out
        if self._error:
            raise self._error
        entry = _Exchange(key, start, kept)
        self._open.append(entry)
        try:
            start(key)
            async with asyncio.timeout(seconds or LIMITS.REQUEST_S):
                await entry.wait()
        except TimeoutError:
            raise TransportError("no answer") from None
        finally:
            self.done(key, None)
        if isinstance(entry.answer, AgentError):
            raise entry.answer
        return entry.answer

    def done(self, key: int | str, answer: Any) -> None:
        """As Client.done."""
        for entry in list(self._open):
            if entry.key == key:
                self._open.remove(entry)
                entry.answer = answer
                entry.set()

    # --- what a library brings

    async def _dial(self) -> None:
        """Begin a link; `_established` or `_fail` follow. An exception is the reason why there is none."""
        raise NotImplementedError

    async def _farewell(self) -> None:
        """Say DISCONNECT, for at most a few seconds. Raises nothing."""
        raise NotImplementedError

    async def _shut(self) -> None:
        """Close what is left of the link, if anything. Raises nothing."""
        raise NotImplementedError

    def _tick(self) -> None:
        """Called several times in a keep-alive interval."""

    def _resume(self) -> None:
        """All messages that arrived are handled."""

    def _again(self, entry: _Exchange) -> None:
        """Send a publish of the session before once more."""
        entry.start(entry.key)

    def _publish(self, key: int | str | None, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Send; then `done(key, None)` at PUBACK, or when it is written (QoS 0). key None: nobody waits."""
        raise NotImplementedError

    def _subscribe(self, key: int | str, pairs: list[tuple[str, int]]) -> None:
        """Send; then `done(key, codes)` with a SUBACK code for each pair."""
        raise NotImplementedError

    def _unsubscribe(self, key: int | str, filters: list[str]) -> None:
        """Send; then `done(key, None)` at UNSUBACK."""
        raise NotImplementedError
