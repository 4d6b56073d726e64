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


class Fetcher:
    """One stream of this thing, over the agent's client. Use: fetch(...) for each file, then close()."""

    OUTAGE_S = 3600  # how long a lost link is waited for
    POLL_S = 1
    WINDOW = 32  # blocks; as many as one request may return (128 KB)

    def __init__(self, agent: Any, stream: str, form: str = "cbor", rate: int = 0) -> None:
        """agent: has `client` and `thing_name`; the client may be replaced by a reconnect. form: "cbor" or "json".
        rate: bytes of messages per second at most, 0 for no limit.
        """
        self._agent = agent
        self._form = form
        self._rate = rate
        self._topic = topics.stream(agent.thing_name, stream, "")
        self._token = binascii.hexlify(os.urandom(6)).decode()
        self._client: Any = None  # the one that has our handlers
        self._tokens: "list[Any]" = []
        self._event = asyncio.Event()
        self._error: "Exception | None" = None
        self._file = self._size = self._left = self._bytes = 0
        self._passed = 0  # blocks that came before the first of `_asked`
        self._asked: "list[int]" = []
        self._window = 4
        self._best = self._trip = self._probed = 0  # ms of the shortest and of the latest round trip; when it began
        self._probe = -1  # block whose coming ends a round trip
        self._lost = self._fresh = False
        self._have: Any = None
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
        total = (size + _BLOCK - 1) // _BLOCK
        self._file, self._size, self._sink = file, size, sink
        self._have = have = have or bytearray((total + 7) // 8)
        self._error = None
        self._forget()
        wanted = failures = base = 0
        for number in range(total):
            wanted += not self._has(number)
        self._left = wanted
        done = total - wanted
        task: Any = None
        try:
            while self._left and not self._error:
                before = self._left
                problem = "no answer"
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
                    problem = str(error)
                    self._detach()  # the session may be a new one without our subscription
                    self._forget()
                except Refused as error:
                    self._error = UpdateError("stream", str(error))
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
                    problem = "file %d block %d: %s" % (file, base, problem)
                    waited = 0
                    await asyncio.sleep((failures - 1) * self.POLL_S)
                    while failures > 6 or not (self._agent.client and self._agent.client.connected):
                        if failures > 6 or waited > self.OUTAGE_S:
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
                raise TransportError("not connected")
            self._client = client
            filters = []
            for verb in ("data/", "rejected/"):
                self._tokens.append(client.on(self._topic + verb + self._form, self._message))
                filters.append((self._topic + verb + self._form, 0))
            client.oversized.append(self._told)
            await client.subscribe(filters)
        if self._lost:
            self._window -= self._window // 2
        elif self._fresh:
            grown = self._window + 1 + self._window // 4
            if self._trip > 2 * self._best + _QUEUE_MS:
                grown = self._window - self._window // 4
            self._window = min(grown, self.WINDOW)
        self._lost = self._fresh = False
        self._event.clear()
        asked = self._asked
        while len(asked) <= self._window // 2:
            number = base
            while number < min(total, base + _SPAN) and (number in asked or self._has(number)):
                number += 1
            # One block until one comes: GetStream is rate-limited.
            count = 1 if failures else self._window - len(asked)
            if self._rate:
                count = min(count, 1 + self._rate // 16384)
            first = number
            while number < min(total, base + _SPAN, first + count) and number not in asked and not self._has(number):
                asked.append(number)
                number += 1
            if number == first:
                return
            if self._rate:
                ahead = (self._bytes + len(asked) * _BLOCK) * 1000 // self._rate - clock.elapsed_ms(self._since)
                if ahead > 0:
                    await asyncio.sleep(ahead / 1000)
            if self._probe < 0:
                self._probe = first
                self._probed = clock.ticks()
            body = {"c": self._token, "f": self._file, "l": _BLOCK, "o": first, "n": number - first}
            await client.publish(self._topic + "get/" + self._form, _FORMS[self._form](body), 0)
            if failures or self._rate:
                return

    def _has(self, number: int) -> int:
        return self._have[number >> 3] >> (number & 7) & 1  # type: ignore[no-any-return]

    def _forget(self) -> None:
        """Nothing that was asked for is expected any more."""
        self._asked.clear()
        self._passed = 0
        self._probe = -1
        self._since = clock.ticks()  # of the bytes that `rate` is about
        self._bytes = 0

    def _detach(self) -> None:
        while self._tokens:
            self._client.off(self._tokens.pop())
            if not self._tokens:
                self._client.oversized.remove(self._told)
        self._client = None

    async def close(self) -> None:
        """Stop listening; tells the server so if there is a link."""
        client = self._client
        if client:
            self._detach()
            try:
                await client.unsubscribe([self._topic + "data/" + self._form, self._topic + "rejected/" + self._form])
            except AgentError:
                pass

    def _starved(self, topic: str, size: int) -> None:
        """A message for which there was no memory was thrown away."""
        if topic.startswith(self._topic):
            self._error = MemoryError()
            self._event.set()

    def _message(self, topic: str, payload: Any) -> None:
        if self._error or not self._sink:
            return
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
                body = json.loads(bytes(payload[:start]) + bytes(payload[end:]))
            else:
                body = _decode(memoryview(payload))
            if (body.get("c") or body.get("clientToken") or self._token) != self._token:
                return
            if topic[len(self._topic)] == "r":  # rejected/
                # Long member names appear too (aws-iot-protocol.md 10.2).
                code = body.get("o") or body.get("code")
                self._asked.clear()
                self._lost = True
                # A passing error: no block came, so this counts as a failed try.
                if code not in ("InternalError", "InternalException", "ThrottlingException"):
                    raise UpdateError("stream", "%s: %s" % (code, body.get("m") or body.get("message")))
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
                self._passed += 1
                if asked[0] == number:
                    self._passed = 0
                asked.remove(number)
                if self._passed > _LATE:
                    del asked[0]
                    self._passed = 0
                    self._lost = True
            if self._has(number):
                return
            data: Any = body.get("p")
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
            if self._error or self._lost or not self._left or len(self._asked) <= self._window // 2:
                self._event.set()


def _number(kind: int, value: int) -> bytes:
    """Head of a CBOR item (RFC 8949, 3): value below 65536."""
    return bytes((kind | 25, value >> 8, value & 255))


def _encode(body: "dict[str, Any]") -> bytes:
    """A flat map of texts and whole numbers as CBOR."""
    out = _number(0xA0, len(body))
    for name, value in body.items():
        for item in (name, value):
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
        if value == 31:  # map without length, and its end
            return 1 << 16 if kind == 5 else item
        if value > 23:
            if value > 26:
                raise ValueError
            size = 1 << value - 24
            value = int.from_bytes(bytes(view[at : at + size]), "big")
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
        if name is item:
            break
        body[name] = item()
    return body


_FORMS: "dict[str, Any]" = {"cbor": _encode, "json": json.dumps}
