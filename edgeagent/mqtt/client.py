# SPDX-License-Identifier: Apache-2.0
"""One MQTT 3.1.1 session over a stream that the port supplies.

Use: `await connect()`, then keep `run()` as a task of its own; `publish` with QoS 1, `subscribe` and `unsubscribe`
need it, because it reads their acknowledgements. When `run()` raises, the link is gone: back off, `connect()` again.

How a link ends, and what waiting callers see:
* the server closes it, TLS or TCP fails, a PINGREQ stays unanswered, the server breaks the protocol, or `close()`:
  `run()` raises; subscriptions and waiters fail with the same error.
* QoS 1 publishes that were sent and not acknowledged fail too if the session is clean. With `clean=False` they wait
  (within their own time-out) for the next `connect()`: if the server kept the session they are sent again with DUP,
  otherwise their callers get TransportError and decide (MQTT 3.1.1, 4.4).
* a task cancelled half-way through writing a packet takes the link with it, since the rest of the packet is lost.

Handlers run in the reader: nothing else is received until they return, and PUBACK goes out after that, so a handler
makes its message durable or hands it to another task, quickly. It must not wait for the client (RuntimeError). If it
raises, the message is not acknowledged: the server sends it again in the next session.
"""

import asyncio
import gc

from edgeagent import clock, compat, log, topics
from edgeagent.compat import const
from edgeagent.errors import AgentError, ProtocolError, Refused, TransportError
from edgeagent.limits import LIMITS
from edgeagent.mqtt import packet, reader

try:
    from typing import Any
except ImportError:
    pass

_CONNACK = const(2)
_PUBLISH = const(3)
_PUBACK = const(4)
_SUBACK = const(9)
_UNSUBACK = const(11)
_PINGRESP = const(13)

_IN_FLIGHT = const(8)  # unacknowledged QoS 1 publishes; AWS allows 100, a board has no room for so many payloads
_FILTERS = const(8)  # aws-iot-protocol.md 2.4: filters in one SUBSCRIBE
_DRAIN_LIMIT = const(262144)  # above twice AWS's largest payload no server is worth listening to
_COPY = const(1024)  # payloads up to this size go into one write (one TLS record) with their header
_PIECE = const(4096)  # of a larger payload; mbedTLS has 4 KB of room for output
_UNHANDLED = const(16)  # messages whose handler failed, before the session is renewed to get them again


class Waiter:
    """One answer that a task waits for; the client fails it when the link ends."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._answer: "Any" = None

    def done(self, answer: "Any" = None) -> None:
        """Give the answer, or an AgentError for `wait` to raise; the first one counts."""
        if not self._event.is_set():
            self._answer = answer
            self._event.set()

    async def wait(self, seconds: int, what: str) -> "Any":
        """The answer. Raises the error given instead, or TransportError naming `what` after `seconds`."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except asyncio.TimeoutError:
            raise TransportError("no answer to %s within %d s" % (what, seconds)) from None
        if isinstance(self._answer, AgentError):
            raise self._answer
        return self._answer


class Client:
    """See the module. Handlers stay registered over reconnects; subscriptions are the caller's to renew."""

    PING_S = 10  # how long a PINGREQ may stay unanswered, or the server not read

    def __init__(
        self,
        open_stream: "Any",
        client_id: str,
        keepalive: int = 60,
        clean: bool = True,
        will: "tuple[str, bytes, int, bool] | None" = None,
        max_packet: int = LIMITS.MQTT_PACKET,
    ) -> None:
        """open_stream: async () -> (reader, writer). keepalive: seconds. max_packet: receive cap, bytes."""
        self.connected = False
        self.session_present = False
        self.oversized: "list[Any]" = []  # functions of (topic, size), told of each message over the cap
        self._open = open_stream
        self._hello = packet.connect(client_id, keepalive, clean, will)
        self._keepalive = keepalive
        self._clean = clean
        self._limit = max_packet
        self._reader: "Any" = None
        self._writer: "Any" = None
        self._task: "Any" = None  # the reader task, while run() runs
        self._lock = asyncio.Lock()  # one writer at a time
        self._ended = asyncio.Event()
        self._error: "AgentError | None" = None
        self._handlers: "list[Any]" = []  # (filter, handler)
        self._unacked: "list[Any]" = []  # (packet id, waiter, topic, payload, retain) in order of sending
        self._slot = asyncio.Event()
        self._waiting: "list[Any]" = []  # (packet id of a SUBSCRIBE or UNSUBSCRIBE, else None; waiter)
        self._id = 0
        self._sent = self._heard = 0
        self._pinged: "int | None" = None
        self._failed = 0

    # --- link

    async def connect(self) -> bool:
        """Open the stream and the session; True if the server kept an earlier one.

        TCP, TLS and CONNACK together take at most LIMITS.CONNECT_S. Raises TransportError, ProtocolError or
        Refused("CONNACK_n"). After a failure the sockets are closed.
        """
        await self._shut()
        up = False
        try:
            await asyncio.wait_for(self._handshake(), LIMITS.CONNECT_S)
            up = True
        except asyncio.TimeoutError:
            raise TransportError("no CONNACK within %d s" % LIMITS.CONNECT_S) from None
        finally:
            if not up:
                await self._shut()
                if compat.MICROPYTHON:
                    gc.collect()  # a cancelled open leaves its socket to the collector (micropython.md A1.2)
        return self.session_present

    async def _handshake(self) -> None:
        self._reader, self._writer = await self._open()
        try:
            # On MicroPython the TLS handshake happens here, in the first write and read.
            self._writer.write(self._hello)
            await self._writer.drain()
            head, size = await reader.header(self._reader)
            if head >> 4 != _CONNACK or size != 2:
                raise ProtocolError("expected CONNACK, got packet type %d" % (head >> 4))
            present, code = packet.decode_connack(head & 15, await reader.body(self._reader, 2) or b"")
        except EOFError:
            raise TransportError("closed by the server before CONNACK: certificate not accepted?") from None
        except (OSError, ValueError) as error:  # ValueError: MicroPython's TLS
            raise TransportError("connect: " + compat.exc_text(error)) from None
        if code:
            raise Refused("CONNACK_%d" % code, "not authorised" if code in (5, 7) else "connection refused")
        if present and self._clean:
            raise ProtocolError("session present after a clean CONNECT")  # 3.2.2.2
        self._error = None
        self._ended.clear()
        self._pinged = None
        self._failed = 0
        self._sent = self._heard = clock.ticks()
        self.session_present = present
        self.connected = True
        for number, waiter, topic, payload, retain in list(self._unacked):
            if present:
                await self._send(packet.publish(topic, len(payload), 1, retain, number, True), payload)
            else:
                waiter.done(TransportError("session lost before PUBACK"))

    async def run(self) -> None:
        """Receive and keep alive until the link ends; then close it and raise TransportError or ProtocolError.

        Cancelling it closes the stream without DISCONNECT (the will is published).
        """
        task = self._task = asyncio.create_task(self._read())
        try:
            while self._error is None:
                await self._keep_alive()
            raise self._error
        finally:
            self._fail(TransportError("stopped"))
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
            self._task = None
            await self._shut()

    async def close(self) -> None:
        """Say DISCONNECT if there is a link, close it, and fail everything that waits. Raises nothing."""
        if self._error is None:
            self._error = TransportError("closed")  # before the server's own close can become the reason
        try:
            await self._send(packet.DISCONNECT)
        except AgentError:
            pass
        self._fail(TransportError("closed"), True)
        await self._shut()

    def _fail(self, error: AgentError, final: bool = False) -> None:
        """The link is over (the first reason counts): wake run() and those who can no longer be answered."""
        if self._error is None:
            self._error = error
        self.connected = False
        self._ended.set()
        for entry in self._waiting + (self._unacked if self._clean or final else []):
            entry[1].done(self._error)

    async def _shut(self) -> None:
        writer = self._writer
        self._reader = self._writer = None
        self.connected = False
        if writer is not None:
            try:
                writer.close()
                await asyncio.wait_for(writer.wait_closed(), 3)
            except Exception as error:  # a dead link may fail to say goodbye; its socket is closed all the same
                log.debug("mqtt", "close: %s", compat.exc_text(error))

    async def _keep_alive(self) -> None:
        try:
            await asyncio.wait_for(self._ended.wait(), min(self._keepalive, self.PING_S) / 4)
            return
        except asyncio.TimeoutError:
            pass
        # Both directions count: a sender of QoS 0 that hears nothing has to find out too.
        if self._pinged is not None:
            if clock.elapsed_ms(self._pinged) >= self.PING_S * 1000:
                self._fail(TransportError("no answer to PINGREQ"))
        elif max(clock.elapsed_ms(self._sent), clock.elapsed_ms(self._heard)) >= self._keepalive * 750:
            self._pinged = clock.ticks()
            try:
                await self._send(packet.PINGREQ)
            except AgentError:
                pass  # _send has recorded it

    async def _send(self, head: bytes, payload: "bytes | bytearray | memoryview" = b"") -> None:
        async with self._lock:
            if not self.connected:
                raise TransportError("not connected")
            writer = self._writer
            at = left = 0
            self._sent = clock.ticks()
            try:
                if len(payload) <= _COPY:
                    head += bytes(payload)
                else:
                    left = len(payload)
                writer.write(head)
                while left > 0:
                    # In pieces that TLS takes at once: MicroPython's stream copies what is left over.
                    writer.write(memoryview(payload)[at : at + _PIECE])
                    at += _PIECE
                    left -= _PIECE
                    if left > 0:
                        await asyncio.wait_for(writer.drain(), self.PING_S)
                await asyncio.wait_for(writer.drain(), self.PING_S)
            except asyncio.TimeoutError:
                self._fail(TransportError("the server does not read"))
            except (OSError, ValueError) as error:
                self._fail(TransportError("link lost: " + compat.exc_text(error)))
            finally:
                if left > 0 or getattr(writer, "out_buf", None):  # cancelled: the rest of this packet is lost
                    self._fail(TransportError("packet cut short"))
            if self._error is not None:
                raise self._error

    # --- receiving

    async def _read(self) -> None:
        try:
            while True:
                head, size = await reader.header(self._reader)
                kind = head >> 4
                body = await reader.body(self._reader, size) if size <= self._limit else None
                self._heard = clock.ticks()
                self._pinged = None
                if body is None:
                    if kind != _PUBLISH or size > _DRAIN_LIMIT:
                        raise ProtocolError("packet type %d of %d bytes" % (kind, size))
                    await self._drop(head & 15, size)
                elif kind == _PUBLISH:
                    await self._message(head & 15, body)
                else:
                    self._acknowledged(kind, head & 15, body)
        except AgentError as error:
            self._fail(error)
        except EOFError:
            self._fail(TransportError("closed by the server"))
        except Exception as error:  # OSError, ValueError of MicroPython's TLS; nothing may end the reader silently
            self._fail(TransportError("link lost: " + compat.exc_text(error)))

    async def _message(self, flags: int, body: "Any") -> None:
        topic, number, at = packet.decode_publish(flags, body)
        if isinstance(body, bytearray):
            body[:at] = b""  # in place: the payload is not copied
        else:
            body = body[at:]
        for name, handler in list(self._handlers):
            if topics.matches(name, topic):
                try:
                    result = handler(topic, body)
                    if hasattr(result, "send"):
                        await result
                except Exception as error:  # the application's; the link is not to blame
                    log.error("mqtt", "handler of %s: %s", topic, compat.exc_text(error))
                    self._failed += 1
                    if self._failed >= _UNHANDLED:
                        raise TransportError("too many messages could not be handled") from None
                    number = 0
        if number:
            await self._send(packet.puback(number))

    async def _drop(self, flags: int, size: int) -> None:
        """Throw away a message over the cap, but acknowledge it: it would only come again."""
        part = await reader.skip(self._reader, size)
        self._heard = clock.ticks()
        topic, number, _ = packet.decode_publish(flags, part)
        log.warning("mqtt", "dropped %d bytes on %s", size, topic)
        for tell in self.oversized:
            tell(topic, size)
        if number:
            await self._send(packet.puback(number))

    def _acknowledged(self, kind: int, flags: int, body: "Any") -> None:
        if kind == _PINGRESP and not body:
            return
        if kind not in (_PUBACK, _SUBACK, _UNSUBACK):
            raise ProtocolError("unexpected packet type %d" % kind)
        number, codes = packet.decode_ack(kind, flags, body)
        # An answer nobody waits for any more came late; there is nothing wrong with it.
        for entry in self._unacked if kind == _PUBACK else self._waiting:
            if entry[0] == number:
                entry[1].done(codes)

    # --- what callers use

    def on(self, topic_filter: str, handler: "Any") -> "Any":
        """Call `handler(topic, payload)` (function or coroutine function) for matching messages; a token for `off`.

        payload: bytes (on MicroPython a bytearray), not to be changed: several handlers may get the same one.
        """
        token = (topic_filter, handler)
        self._handlers.append(token)
        return token

    def off(self, token: "Any") -> None:
        """Forget a handler; one that is gone already is fine."""
        if token in self._handlers:
            self._handlers.remove(token)

    async def publish(
        self, topic: str, payload: "str | bytes | bytearray | memoryview", qos: int = 1, retain: bool = False
    ) -> None:
        """Send a message. QoS 1 returns at PUBACK; raises TransportError, also after LIMITS.REQUEST_S without one.

        `payload` must not change until this returns. At most 8 publishes are in flight; more wait for their turn.
        """
        data = payload.encode() if isinstance(payload, str) else payload
        if not qos:
            await self._send(packet.publish(topic, len(data), 0, retain), data)
            return
        while len(self._unacked) >= _IN_FLIGHT:
            self._slot.clear()
            await self._slot.wait()  # ends: each publish in flight has its time-out
        entry = (self._next_id(), Waiter(), topic, data, retain)
        head = packet.publish(topic, len(data), 1, retain, entry[0])
        self._unacked.append(entry)
        try:
            up = self.connected
            try:
                await self._send(head, data)
            except TransportError:
                if self._clean or not up:
                    raise
                # The server may have it or not: the next session, if it is the same, settles that.
            await entry[1].wait(LIMITS.REQUEST_S, "PUBLISH " + topic)
        finally:
            self._unacked.remove(entry)
            self._slot.set()

    async def subscribe(self, filters: "list[tuple[str, int]]") -> None:
        """Subscribe to (filter, qos) pairs, 8 in a packet. Raises Refused("SUBACK_128") naming the filters denied."""
        for n in range(0, len(filters), _FILTERS):
            some = filters[n : n + _FILTERS]
            number = self._next_id()
            codes = await self._exchange(number, packet.subscribe(number, some))
            if len(codes) != len(some):
                raise ProtocolError("SUBACK for %d of %d filters" % (len(codes), len(some)))
            denied = [some[i][0] for i in range(len(some)) if codes[i] > 1]
            if denied:
                raise Refused("SUBACK_128", "subscription refused: " + ", ".join(denied))

    async def unsubscribe(self, filters: "list[str]") -> None:
        """Unsubscribe from at most 8 filters."""
        number = self._next_id()
        await self._exchange(number, packet.unsubscribe(number, filters))

    async def _exchange(self, number: int, data: bytes) -> "Any":
        entry = self.expect(number)
        try:
            await self._send(data)
            return await entry[1].wait(LIMITS.REQUEST_S, "SUBSCRIBE")
        finally:
            self.forget(entry)

    def expect(self, number: "int | None" = None) -> "tuple[int | None, Waiter]":
        """A (…, Waiter) that fails when the link ends; give it back with `forget`."""
        entry = (number, Waiter())
        self._waiting.append(entry)
        return entry

    def forget(self, entry: "tuple[int | None, Waiter]") -> None:
        """Stop expecting an answer."""
        self._waiting.remove(entry)

    def _next_id(self) -> int:
        if self._task is not None and asyncio.current_task() is self._task:
            raise RuntimeError("a message handler must not wait for its client")
        used = [entry[0] for entry in self._unacked + self._waiting]
        while True:
            self._id = self._id % 65535 + 1
            if self._id not in used:
                return self._id
