# SPDX-License-Identifier: Apache-2.0
"""One MQTT 3.1.1 session over a stream that the port supplies.

Use: `await connect()`, then keep `run()` as a task of its own; `publish` with QoS 1, `subscribe` and `unsubscribe`
need it, because it reads their acknowledgements. When `run()` raises, the link is gone: back off, `connect()` again.

How a link ends, and what waiting callers see:
* the server closes it, TLS or TCP fails, a PINGREQ stays unanswered, the server breaks the protocol, or `close()`:
  `run()` raises; subscriptions and requests fail with the same error.
* QoS 1 publishes that were sent and not acknowledged fail too if the session is clean. With `clean=False` they wait
  (within their own time-out) for the next `connect()`: if the server kept the session they are sent again with DUP,
  otherwise their callers get TransportError and decide (MQTT 3.1.1, 4.4).
* a task cancelled half-way through writing a packet takes the link with it, since the rest of the packet is lost.

The client queues nothing: 8 exchanges are open at most, further callers wait for their turn with their own payloads.

Handlers run in the reader: nothing else is received until they return, and PUBACK goes out after that, so a handler
makes its message durable or hands it to another task, quickly. It must not wait for the client: what it waits for would
time out. If it raises, the message is not acknowledged: the server may send it again in the next session.
"""

import asyncio
import gc

from edgeagent import log, topics
from edgeagent.compat import Any, const, exc_text, shut, wait_for
from edgeagent.errors import AgentError, ProtocolError, Refused, TransportError
from edgeagent.limits import LIMITS
from edgeagent.mqtt import packet

_PUBLISH = const(3)
_PINGREQ = const(b"\xc0\x00")
_DISCONNECT = const(b"\xe0\x00")
_PUBACK = const(b"\x40\x02")  # and the packet id
_IN_FLIGHT = const(8)  # exchanges at a time; AWS allows 100 publishes, a board has no room for so many payloads
_FILTERS = const(8)  # aws-iot-protocol.md 2.4: filters in one SUBSCRIBE
_DRAIN_LIMIT = const(262144)  # above twice AWS's largest payload no server is worth listening to
_KEPT = const(512)  # of a packet over the cap: topic and packet id of any PUBLISH on AWS's topics are in them
_COPY = const(1024)  # this much payload goes into one write (one TLS record) with its header
_PIECE = const(4096)  # of the rest; mbedTLS has 4 KB of room for output


class _Exchange(asyncio.Event):
    """A packet that was sent, and the event of its answer."""

    key: "int | str"
    head: bytes
    payload: Any
    answer: Any


class Client:
    """See the module. Handlers stay registered over reconnects; subscriptions are the caller's to renew."""

    WRITE_S = 10  # how long the server may not read

    def __init__(
        self,
        open_stream: Any,
        client_id: str,
        keepalive: int = 60,
        clean: bool = True,
        will: "tuple[str, str] | None" = None,
    ) -> None:
        """open_stream: async () -> (reader, writer). keepalive: seconds, from 1. Receives at most LIMITS.MQTT_PACKET
        bytes.

        will: (topic, text) that the server publishes, retained, with QoS 1, if the link ends without DISCONNECT.
        """
        self.open_stream = open_stream
        self.keepalive = keepalive
        self.clean = clean
        self.connected = False
        self.oversized: "list[Any]" = []  # functions of (topic, size), told of each message over the cap
        # On boards: bytearray for the packets above 1 KB that fit into it: a used heap has no room in one piece.
        self.spare: Any = None
        self._hello = packet.connect(client_id, keepalive, clean, will)
        self._reader: Any
        self._writer: Any = None  # also the identity of the link: what belongs to an earlier one is not sent on this
        self._lock: Any  # one packet at a time
        self._ended = asyncio.Event()
        self._error: Any = TransportError("not connected")  # why there is no link; None while there is one
        self._handlers: "list[Any]" = []  # (filter, handler)
        self._open: "list[_Exchange]" = []  # in order of sending
        self._id = 0
        self._quiet: bool  # nothing came since the last PINGREQ

    # --- link

    async def connect(self) -> bool:
        """Open the stream and the session; True if the server kept an earlier one.

        TCP, TLS and CONNACK together take at most LIMITS.CONNECT_S. Raises TransportError, ProtocolError or
        Refused("CONNACK_n"). After a failure the sockets are closed.
        """
        try:
            present = await wait_for(self._handshake(), LIMITS.CONNECT_S)
            if self._error:  # while sending again
                raise self._error
            self.connected = True
            return present  # type: ignore[no-any-return]
        except Exception as error:
            self._error = None  # why the last link ended
            self._fail(error)
            raise self._error from None
        finally:
            if not self.connected:
                await self._shut()
                gc.collect()  # on boards a cancelled open leaves its socket to the collector (micropython.md A1.2)

    async def _handshake(self) -> bool:
        self._reader, writer = await self.open_stream()
        self._writer = writer
        self._lock = asyncio.Lock()
        # On MicroPython the TLS handshake happens here, in the first write and read.
        writer.write(self._hello)
        await writer.drain()
        head, body, size = await self._receive()
        if head != 0x20 or size != 2:
            raise ProtocolError("no CONNACK")
        present, code = body
        if code:
            raise Refused("CONNACK_%d" % code, "refused")
        if present > (not self.clean):  # 3.2.2.2
            raise ProtocolError("session present")
        self._ended.clear()
        self._error = None
        for entry in list(self._open):  # publishes of the session before
            if present:
                await self._send(bytes((entry.head[0] | 8,)) + entry.head[1:], entry.payload)  # DUP (3.3.1.1)
            else:
                self.done(entry.key, TransportError("session lost"))
        return present > 0

    async def run(self) -> None:
        """Receive and keep alive until the link ends; then close it and raise TransportError or ProtocolError.

        Cancelling it closes the stream without DISCONNECT.
        """
        task = asyncio.create_task(self._read())
        try:
            while not self._error:
                try:
                    await wait_for(self._ended.wait(), self.keepalive / 2)
                except asyncio.TimeoutError:
                    # Traffic or not: a sender of QoS 0 that hears nothing has to find out too.
                    if self._quiet:
                        self._fail(TransportError("no PINGRESP"))
                    self._quiet = True
                    await self._send(_PINGREQ)
            raise self._error
        finally:
            task.cancel()
            await self._shut()

    async def close(self) -> None:
        """Say DISCONNECT if there is a link, close it, and fail everything that waits. Raises nothing."""
        self._error = self._error or TransportError("closed")  # before the server's own close can become the reason
        try:
            if self.connected:
                await self._send(_DISCONNECT)
        finally:
            await self._shut(True)

    def _fail(self, error: Exception, final: bool = False) -> None:
        """The link is over (the first reason counts): wake run() and those who can no longer be answered."""
        if not self._error:
            if not isinstance(error, AgentError):
                text = "link: " + exc_text(error)
                if isinstance(error, EOFError):
                    text = "closed by the server: certificate?"
                error = TransportError(text)
            self._error = error
        self.connected = False
        self._ended.set()
        for entry in list(self._open):
            # A QoS 1 PUBLISH may still be settled by the next session.
            if final or self.clean or entry.head[0] & 0xF2 != 0x32:
                self.done(entry.key, self._error)

    async def _shut(self, final: bool = False) -> None:
        self._fail(TransportError("closed"), final)
        writer = self._writer
        self._writer = None
        if writer:
            try:
                await shut(writer)
            except Exception:  # noqa: S110 - a dead link may fail to say goodbye; its socket is closed all the same
                pass

    async def _send(self, head: bytes, payload: Any = b"", writer: Any = None) -> None:
        """Write one packet, if the link of `writer` (default: the present one) still is. If that fails the link ends:
        nothing is raised here, see `_error`.
        """
        lock = self._lock
        writer = writer or self._writer
        await lock.acquire()
        # In pieces that TLS takes at once: MicroPython's stream copies what is left over.
        view = memoryview(payload)
        part: Any = head + view[:_COPY]
        view = view[_COPY:]
        error: Exception = TransportError("packet cut short")  # cancelled: the rest is lost
        try:
            while part and writer is self._writer and not self._ended.is_set():
                writer.write(part)
                part = view[:_PIECE]
                view = view[_PIECE:]
                await wait_for(writer.drain(), self.WRITE_S)
        except Exception as problem:  # OSError, ValueError of MicroPython's TLS, TimeoutError: it does not read
            part = error = problem
        finally:
            lock.release()
            if writer is self._writer and (part or getattr(writer, "out_buf", None)):
                self._fail(error)

    # --- receiving

    async def _receive(self) -> "tuple[int, bytearray, int]":
        """(first byte, body, size of the body) of the next packet; of a body over the cap only the beginning."""
        reader = self._reader
        read = reader.readexactly
        head = (await read(1))[0]
        self._quiet = False
        size = shift = 0
        byte = 128
        while byte > 127:
            if shift > 21:
                raise ProtocolError("bad length")  # 2.2.3
            byte = (await read(1))[0]
            size |= (byte & 127) << shift
            shift += 7
        try:
            if size > LIMITS.MQTT_PACKET:
                if head >> 4 != _PUBLISH or size > _DRAIN_LIMIT:
                    raise ProtocolError("bad length")
                raise MemoryError
            body = self.spare
            if not body or not 1024 < size < len(body):
                body = bytearray(size)
        except MemoryError:  # after a collection: the allocator has tried that
            body = bytearray(min(size, _KEPT))
        left = max(size - len(body), 0)
        if hasattr(reader, "readinto"):
            # MicroPython's readexactly would build it from pieces, in twice the memory (micropython.md A1.2).
            view = memoryview(body)[:size]
            while view:
                count = await reader.readinto(view)
                if count == 0:
                    raise EOFError
                view = view[count or 0 :]  # None: TLS has no whole record yet
        else:
            body[:] = await read(size - left)
        while left:
            left -= len(await read(min(left, _KEPT)))
            self._quiet = False
        return head, body, size

    async def _read(self) -> None:
        writer = self._writer
        try:
            while writer is self._writer:  # a handler may have outlived its link
                head, body, size = await self._receive()
                if head >> 4 == _PUBLISH:
                    number = await self._message(head, body, size)
                    if number:
                        await self._send(_PUBACK + packet.number(number), b"", writer)
                elif head != 0xD0 or size:  # PINGRESP
                    self.done(*packet.decode_ack(head, body))
                del body  # before the next is read
        except Exception as error:  # nothing may end the reader silently
            self._fail(error)

    async def _message(self, head: int, body: bytearray, size: int) -> int:
        """Hand a PUBLISH to its handlers; the packet id to acknowledge, or 0."""
        topic, number, at = packet.decode_publish(head, body)
        payload: Any = body
        handlers = self.oversized
        if len(body) < size:
            # Thrown away, but acknowledged: it would only come again.
            log.warning("mqtt", "%s: dropped %d bytes", topic, size)
            payload = size
        else:
            if len(body) > size:  # the spare one, which may have been given up meanwhile
                payload = memoryview(body)[at:size]
                if "/streams/" not in topic:  # whose handler alone does with a view
                    payload = bytearray(payload)
            else:
                body[:at] = b""  # in place: the payload is not copied
            handlers = []
            for name, handler in self._handlers:
                if topics.matches(name, topic):
                    handlers.append(handler)
        for handler in handlers:
            try:
                result = handler(topic, payload)
                if hasattr(result, "send"):
                    await result
            except Exception as error:  # the application's; the link is not to blame
                log.error("mqtt", "%s: %s", topic, exc_text(error))
                number = 0
        return number

    def on(self, topic: str, handler: Any) -> Any:
        """Call `handler(topic, payload)` (a function or coroutine function) for matching messages; a token for `off`.

        topic: a topic filter. payload: a bytearray, not to be changed: several handlers may get the same one.
        """
        token = (topic, handler)
        self._handlers.append(token)
        return token

    def off(self, token: Any) -> None:
        """Forget a handler; one that is gone already is fine."""
        if token in self._handlers:
            self._handlers.remove(token)

    # --- sending

    async def publish(
        self, topic: str, payload: "str | bytes | bytearray | memoryview", qos: int = 1, retain: bool = False
    ) -> None:
        """Send a message. QoS 1 returns at PUBACK; raises TransportError, also after LIMITS.REQUEST_S without one.

        `payload` must not change until this returns. At most 8 publishes are in flight; more wait for their turn.
        retain: the server keeps it for those who subscribe later.
        """
        data = payload.encode() if isinstance(payload, str) else payload
        number = await self._turn(qos)
        head = packet.publish(topic, len(data), qos, retain, number)
        if qos:
            await self._exchange(number, head, data)
        else:
            await self._send(head, data)
            await self._turn(0)

    async def subscribe(self, filters: "list[Any]", head: int = 0x82) -> None:
        """Subscribe to filters, or (filter, qos) pairs, 8 in a packet.

        Raises Refused("SUBACK_128") naming the first that is denied.
        """
        for n in range(0, len(filters), _FILTERS):
            some = filters[n : n + _FILTERS]
            number = await self._turn()
            codes = await self._exchange(number, packet.filters(head, number, some))
            if head == 0x82 and len(codes) != len(some):
                raise ProtocolError("bad SUBACK")
            for code, name in zip(codes, some):  # noqa: B905 - unknown to MicroPython
                if code > 1:
                    raise Refused("SUBACK_128", str(name))

    def unsubscribe(self, filters: "list[str]") -> Any:
        """Unsubscribe from filters; to be awaited."""
        return self.subscribe(filters, 0xA2)

    async def request(self, topic: str, data: bytes, key: str, seconds: "float | None" = None) -> Any:
        """Publish `data` with QoS 0; what `done(key, answer)` gives is returned, or raised if it is an AgentError.

        key: a text that no other open request has. seconds: default LIMITS.REQUEST_S. Raises TransportError after them,
        or when the link ends. Requests count among the 8 in flight.
        """
        await self._turn()
        return await self._exchange(key, packet.publish(topic, len(data), 0, False), data, seconds)

    async def _turn(self, wait: int = 1) -> int:
        """Wait until one more exchange may be open; a packet id that none has. Callers that wait are the only queue.

        wait: 0 only looks whether there is a link.
        """
        while wait and len(self._open) >= _IN_FLIGHT:
            await self._open[0].wait()  # ends: each has its time-out
        if not self.connected:
            # Not the error itself: what is raised again and again collects a traceback each time.
            raise TransportError(str(self._error))
        while True:
            self._id = number = self._id % 65535 + 1
            for entry in self._open:
                if entry.key == number:
                    break
            else:
                return number

    async def _exchange(self, key: "int | str", head: bytes, payload: Any = b"", seconds: "float | None" = None) -> Any:
        entry = _Exchange()
        entry.key = key
        entry.head = head
        entry.payload = payload
        self._open.append(entry)
        try:
            await self._send(head, payload)
            await wait_for(entry.wait(), seconds or LIMITS.REQUEST_S)
        except asyncio.TimeoutError:
            raise TransportError("no answer") from None
        finally:
            self.done(key, None)
        if isinstance(entry.answer, AgentError):
            raise entry.answer
        return entry.answer

    def done(self, key: "int | str", answer: Any) -> None:
        """End the exchange of `key`, if it is still open: the first answer counts."""
        for entry in list(self._open):
            if entry.key == key:
                self._open.remove(entry)
                entry.answer = answer
                entry.set()
