# SPDX-License-Identifier: Apache-2.0
"""Files of a stream, block by block, over MQTT (CBOR or JSON). Source: aws-iot-protocol.md sections 10.1-10.3.

Several requests are under way: `_asked` are the blocks that should come, in the order in which they were asked for, and
`_window` is how many those may be. It grows with each round trip, by a quarter; it shrinks by half when a block is
lost, and by a quarter when a round trip takes much longer than the shortest one, since requests then only wait in a
queue, with the answers to all else behind them. Lost is a block after which _LATE others have come that were asked for
later, and every block when nothing comes any more.

A block is given to its sink inside the message handler and nothing is queued, so at most one block is in memory
whatever the window: TCP holds the rest back. The data topic is at QoS 0, as AWS's own clients do it.
"""

import asyncio
import binascii
import json
import os

from edgeagent import clock, topics
from edgeagent.compat import Any, const, wait_for
from edgeagent.errors import AgentError, Refused, TransportError, UpdateError
from edgeagent.limits import LIMITS

_BLOCK = const(4096)  # LIMITS.BLOCK; a number is smaller here than a name
_LATE = const(8)  # the service may answer requests side by side: so much disorder is none
_SPAN = const(64)  # blocks; a file has no holes wider than this, which littlefs would have to copy when they are filled
_QUEUE_MS = const(500)
# Beginnings of the codes of passing errors: Internal…, Throttl…, RequestThrottled, LimitExceeded…, ServiceUnavailable…,
# TooMany…. AWS's lists differ from service to service.
_PASSING = const("Int Thr Req Lim Ser Too")


class Fetcher:
    """One stream of this thing, over the agent's client. Use: fetch(...) for each file, then close()."""

    OUTAGE_S = 3600  # how long a lost link is waited for
    POLL_S = 1
    WINDOW = 32  # blocks; as many as one request may return (128 KB)

    # Of the file that is fetched, and so without a value before:
    _error: "Exception | None"
    _problem: str  # why nothing came
    _bytes: int
    _passed: int  # blocks that came before the first of `_asked`
    _probe: int  # block whose coming ends a round trip, or -1
    _probed: int  # when that began
    _trip: int  # ms of the latest one

    def __init__(self, agent: Any, stream: str, form: str = "cbor", rate: int = 0) -> None:
        """agent: has `client` and `thing_name`; the client may be replaced by a reconnect. form: "cbor" or "json".
        rate: bytes of messages per second at most, 0 for no limit.
        """
        self._agent = agent
        self._form = form
        self._rate = rate
        self._topic = topic = topics.stream(agent.thing_name, stream, "")
        self._names = [topic + "data/" + form, topic + "rejected/" + form]
        self._token = binascii.hexlify(os.urandom(6)).decode()
        self._client: Any = None  # the one that has our handlers
        self._tokens: "list[Any]" = []
        self._event = asyncio.Event()
        self._busy = 0  # not 0: the service refused for the time being
        self._asked: "list[int]" = []
        self._window = 4
        self._best = 0  # ms of the shortest round trip
        self._lost = self._fresh = False
        self._sink: Any = None
        self._told = self._starved  # always the same object

    async def fetch(self, file: int, size: int, sink: Any, have: Any = None, tick: Any = None) -> None:
        """Give the blocks of a file of `size` bytes to `sink(number, data)`, in any order, each once.

        sink: a plain function, quick; `data` is valid until it returns, and if it returns True the block has to come
        again; the OSError or UpdateError that it raises ends the fetch and is raised here. have: bytearray with a bit
        for each block, the lowest of byte 0 for the first, set for those that are not wanted; gets the others set.
        tick: coroutine function of the percentage done, called when it enters another ten; the transfer does not wait.

        Raises UpdateError "stream" if the service refuses, "transfer" if nothing comes any more, and MemoryError: the
        runner restarts the device then, and the download goes on.
        """
        total = (size + (_BLOCK - 1)) // _BLOCK
        self._file, self._size, self._sink = file, size, sink
        self._have = have or bytearray((total + 7) // 8)
        self._error = None
        self._forget()
        done = failures = base = 0
        for number in range(total):
            done += self._has(number)
        self._left = total - done
        task: Any = None
        try:
            while self._left and not self._error:
                before = self._left
                self._problem = "no answer"
                try:
                    await self._ask(base, total, failures)
                    limit = LIMITS.REQUEST_S
                    if self._best and not failures:
                        limit = min(limit, 2 + self._trip * 4 // 1000)
                    await wait_for(self._event.wait(), limit)
                except asyncio.TimeoutError:
                    if self._left == before:
                        if failures:
                            self._detach()
                        self._forget()
                        self._lost = True
                except TransportError as error:
                    self._problem = str(error)
                    self._detach()  # the session may be a new one without our subscription
                    self._forget()
                except Refused as error:
                    raise UpdateError("stream", str(error)) from None
                if self._error:
                    break
                while base < total and self._has(base):
                    base += 1
                if task and task.done():
                    await task
                    task = None
                if self._left < before:
                    failures = 0
                    now = total - self._left
                    if tick and not task and done * 10 // total < now * 10 // total:
                        done = now
                        task = asyncio.create_task(tick(now * 100 // total))
                elif not self._asked:
                    failures += 1
                    problem = "file %d block %d: %s" % (file, base, self._problem)
                    waited = 0
                    if failures > 6:
                        raise UpdateError("transfer", problem)
                    # A fleet that was refused together comes back one by one, after 4 to 8 minutes in all.
                    await asyncio.sleep((failures - 1 + (self._busy << failures) / 64) * self.POLL_S)
                    self._busy = 0
                    while not (self._agent.client and self._agent.client.connected):
                        if waited > self.OUTAGE_S:
                            raise UpdateError("transfer", problem)
                        waited += 1
                        await asyncio.sleep(self.POLL_S)
            if self._error:
                raise self._error
            if task:
                await task
        finally:
            if task:
                task.cancel()
            self._sink = None

    async def _ask(self, base: int, total: int, failures: int) -> None:
        """Adapt the window, and if half of it is free ask for what fits in. Raises TransportError, Refused."""
        client = self._client
        if not client:
            client = self._agent.client
            if not client:
                raise TransportError("offline")
            self._client = client
            client.oversized.append(self._told)
            filters = []
            for name in self._names:
                self._tokens.append(client.on(name, self._message))
                filters.append((name, 0))
            await client.subscribe(filters)
        window = self._window
        if self._lost:
            window -= window // 2
        elif self._fresh:
            if self._trip > 2 * self._best + _QUEUE_MS:
                window -= window // 4
            else:
                window = min(window + 1 + window // 4, self.WINDOW)
        self._window = window
        self._lost = self._fresh = False
        self._event.clear()
        asked = self._asked
        rate = self._rate
        total = min(total, base + _SPAN)
        while len(asked) <= window // 2:
            # One block until one comes: GetStream is rate-limited.
            most = 1 if failures else window - len(asked)
            if rate:
                most = min(most, 1 + rate // 16384)
            number = base
            count = 0  # of neighbours before `number`
            while number < total and count < most:
                if number not in asked and not self._has(number):
                    asked.append(number)
                    count += 1
                elif count:
                    break
                number += 1
            if not count:
                return
            if rate:
                ahead = (self._bytes + len(asked) * _BLOCK) * 1000 // rate - clock.elapsed_ms(self._since)
                if ahead > 0:
                    await asyncio.sleep(ahead / 1000)
            if self._probe < 0:
                self._probe = number - count
                self._probed = clock.ticks()
            encode: Any = json.dumps if self._form == "json" else _encode
            body = {"c": self._token, "f": self._file, "l": _BLOCK, "o": number - count, "n": count}
            await client.publish(self._topic + "get/" + self._form, encode(body), 0)
            if failures or rate:
                return

    def _has(self, number: int) -> int:
        return self._have[number >> 3] >> (number & 7) & 1

    def _forget(self) -> None:
        """Nothing that was asked for is expected any more."""
        self._asked = []
        self._passed = 0
        self._probe = -1
        self._since = clock.ticks()  # of the bytes that `rate` is about
        self._bytes = 0

    def _detach(self) -> None:
        client = self._client
        if client:
            self._client = None
            client.oversized.remove(self._told)
            while self._tokens:
                client.off(self._tokens.pop())

    async def close(self) -> None:
        """Stop listening; tells the server so if there is a link."""
        client = self._client
        if client:
            self._detach()
            try:
                await client.unsubscribe(self._names)
            except AgentError:
                pass

    def _starved(self, topic: str, size: int) -> None:
        """A message for which there was no memory was thrown away."""
        if topic.startswith(self._topic):
            self._error = MemoryError()
            self._event.set()

    def _message(self, topic: str, payload: Any) -> None:
        if not self._sink or self._error:
            return
        expected = False
        try:
            start = end = 0
            if self._form == "json":
                # The block does not go through JSON, and is decoded within the packet: 12 KB less at the peak.
                at = payload.find(b'"p"')
                if at >= 0:
                    start = payload.find(b'"', at + 3) + 1
                    end = payload.find(b'"', start)
                    if not start or end < 0:
                        raise ValueError
                body = json.loads(payload[:start] + payload[end:])
            else:
                body = _decode(memoryview(payload))
            get = body.get
            if (get("c") or get("clientToken") or self._token) != self._token:
                return
            if topic[len(self._topic)] == "r":  # rejected/
                # Long member names appear too (aws-iot-protocol.md 10.2).
                code = "%3s" % (get("o") or get("code"))
                self._problem = "%s: %s" % (code, get("m") or get("message"))
                if code[:3] not in _PASSING:
                    raise UpdateError("stream", self._problem)
                # No block came, so this counts as a failed try.
                self._asked.clear()
                self._lost = True
                self._busy = os.urandom(1)[0] | 128
                return
            number = body["i"]
            if type(number) is not int:
                raise ValueError
            size = min(_BLOCK, self._size - number * _BLOCK)
            if body["f"] != self._file or size <= 0 or number < 0:
                return  # late answer to an earlier request
            self._bytes += len(payload)
            if number == self._probe:
                self._probe = -1
                self._trip = clock.elapsed_ms(self._probed) + 1
                self._best = min(self._best or self._trip, self._trip)
                self._fresh = True
            asked = self._asked
            if number in asked:
                expected = True
                self._passed = 0 if asked[0] == number else self._passed + 1
                asked.remove(number)
                if self._passed > _LATE:
                    del asked[0]
                    self._passed = 0
                    self._lost = True
            if self._has(number):
                return
            data: Any = get("p")
            if start:
                data = binascii.a2b_base64(memoryview(payload)[start:end])  # passes over the \ of \/
            if len(data) != size:
                raise UpdateError("size", "file %d block %d" % (self._file, number))
            if self._sink(number, data):
                asked.clear()
                self._lost = True
            else:
                self._have[number >> 3] |= 1 << (number & 7)
                self._left -= 1
        except (OSError, UpdateError, MemoryError) as error:
            self._error = error
        except (ValueError, TypeError, LookupError, AttributeError):
            self._error = UpdateError("stream", "malformed message")
        finally:
            # What nobody asked for must not put off the end of the wait.
            if self._error or self._lost or not self._left or (expected and len(self._asked) <= self._window // 2):
                self._event.set()


def _number(kind: int, value: int) -> bytes:
    """Head of a CBOR item (RFC 8949, 3): value below 65536."""
    return bytes((kind | 25, value >> 8, value & 255))


def _encode(body: "dict[str, Any]") -> bytes:
    """A flat map of texts and whole numbers as CBOR."""
    out = _number(0xA0, len(body))
    for member in body.items():
        for item in member:
            out += _number(0, item) if type(item) is int else _number(0x60, len(item)) + item.encode()
    return out


def _decode(view: Any) -> "dict[str, Any]":
    """A flat map of texts, whole numbers and byte strings (as views) from CBOR. Raises ValueError, IndexError."""
    at = 0

    def item() -> Any:
        nonlocal at
        kind = view[at] >> 5
        value = view[at] & 31
        at += 1
        if value == 31:  # map without length, or (as kind 7) its end
            value = 1 << 16
        elif value > 23:
            if value > 26:
                raise ValueError
            size = 1 << value - 24
            value = int.from_bytes(view[at : at + size], "big")
            at += size
        if kind == 2 or kind == 3:
            at += value
            if at > len(view):
                raise ValueError
            data = view[at - value : at]
            return data if kind == 2 else bytes(data).decode()
        if kind == 1 or kind == 4 or kind == 6:
            raise ValueError
        return None if kind == 7 else value

    if view[0] >> 5 != 5:
        raise ValueError
    body = {}
    left = item()
    while left:
        left -= 1
        name = item()
        if name is None:
            break
        body[name] = item()
    return body
