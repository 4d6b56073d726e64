# SPDX-License-Identifier: Apache-2.0
"""Files of a stream, block by block, over MQTT (JSON form). Source: aws-iot-protocol.md sections 10.1-10.3.

A block is given to its sink inside the message handler and nothing is queued, so at most one block is in memory
whatever the number asked for: TCP holds the rest back. The data topic is at QoS 0, as AWS's own clients do it; what a
lost link swallows is asked for again.
"""

import asyncio
import binascii
import json
import os

from edgeagent import topics
from edgeagent.compat import Any, const
from edgeagent.errors import AgentError, Refused, TransportError, UpdateError
from edgeagent.limits import LIMITS

_BLOCK = const(4096)  # LIMITS.BLOCK; a number is smaller here than a name


class Fetcher:
    """One stream of this thing, over the agent's client. Use: fetch(...) for each file, then close()."""

    OUTAGE_S = 3600  # how long a lost link is waited for
    POLL_S = 1

    def __init__(self, agent: Any, stream: str) -> None:
        """agent: has `client` and `thing_name`; the client may be replaced by a reconnect."""
        self._agent = agent
        self._topic = topics.stream(agent.thing_name, stream, "")
        self._token = binascii.hexlify(os.urandom(6)).decode()
        self._client: Any = None  # the one that has our handlers
        self._tokens: "list[Any]" = []
        self._event = asyncio.Event()
        self._error: "Exception | None" = None
        self._file = self._size = self._next = self._left = 0
        self._sink: Any = None

    async def fetch(self, file: int, size: int, sink: Any, first: int = 0, tick: Any = None) -> None:
        """Give blocks first, first+1, … of a file of `size` bytes to `sink(number, data)`, in order, each once.

        sink: a plain function, quick; `data` is valid until it returns; the OSError or UpdateError that it raises ends
        the fetch and is raised here. tick: coroutine function of the percentage done, called when
        it enters another ten.
        Raises UpdateError "stream" if the service refuses, "transfer" if nothing comes any more, and MemoryError: the
        runner restarts the device then, and the download goes on.
        """
        total = (size + _BLOCK - 1) // _BLOCK
        self._file, self._size, self._next, self._sink = file, size, first, sink
        self._error = None
        failures = 0
        while self._next < total:
            before = self._next
            problem = "no answer"
            try:
                client = self._client
                if not client:
                    client = self._client = self._agent.client
                    if not client:
                        raise TransportError("not connected")
                    filters = []
                    for verb in ("data/json", "rejected/json"):
                        self._tokens.append(client.on(self._topic + verb, self._message))
                        filters.append((self._topic + verb, 0))
                    await client.subscribe(filters)
                # A request may return 32 blocks (128 KB), and GetStream is rate-limited.
                self._left = 1 if failures else min(8, total - before)
                self._event.clear()
                body = {"c": self._token, "f": file, "l": _BLOCK, "o": before, "n": self._left}
                await client.publish(self._topic + "get/json", json.dumps(body), 0)
                await asyncio.wait_for(self._event.wait(), LIMITS.REQUEST_S)
            except asyncio.TimeoutError:
                self._detach()
            except TransportError as error:
                problem = str(error)
                self._detach()  # the session may be a new one without our subscription
            except Refused as error:
                self._error = UpdateError("stream", str(error))
            if self._error:
                raise self._error
            if self._next > before:
                failures = 0
                if tick and before * 10 // total < self._next * 10 // total:
                    await tick(self._next * 100 // total)
            else:
                failures += 1
                problem = "file %d block %d: %s" % (file, before, problem)
                if failures > 6:
                    raise UpdateError("transfer", problem)
                waited = 0
                await asyncio.sleep(failures * self.POLL_S)
                while not (self._agent.client and self._agent.client.connected):
                    if waited > self.OUTAGE_S:
                        raise UpdateError("transfer", problem)
                    waited += 1
                    await asyncio.sleep(self.POLL_S)

    def _detach(self) -> None:
        while self._tokens:
            self._client.off(self._tokens.pop())
        self._client = None

    async def close(self) -> None:
        """Stop listening; tells the server so if there is a link."""
        client = self._client
        if client:
            self._detach()
            try:
                await client.unsubscribe([self._topic + "data/json", self._topic + "rejected/json"])
            except AgentError:
                pass

    def _message(self, topic: str, payload: Any) -> None:
        if self._error:
            return
        try:
            if topic.endswith("rejected/json"):
                # Long member names appear too (aws-iot-protocol.md 10.2).
                body = json.loads(payload)
                code = body.get("o") or body.get("code")
                if (body.get("c") or body.get("clientToken") or self._token) == self._token:
                    self._left = 0
                    # A passing error: no block came, so this counts as a failed try.
                    if code not in ("InternalError", "InternalException", "ThrottlingException"):
                        raise UpdateError("stream", "%s: %s" % (code, body.get("m") or body.get("message")))
                return
            # The block does not go through JSON, and is decoded within the packet: 12 KB less at the peak.
            at = payload.find(b'"p"')
            start = payload.find(b'"', at + 3) + 1
            end = payload.find(b'"', start)
            if at < 0 or not start or end < 0:
                raise ValueError
            body = json.loads(bytes(payload[:start]) + bytes(payload[end:]))
            if body.get("c", self._token) != self._token or body["f"] != self._file:
                return  # late answer to an earlier request
            self._left -= 1
            at = body["i"]
            size = min(_BLOCK, self._size - at * _BLOCK)
            if at != self._next or size <= 0:
                return
            data: Any = memoryview(payload)
            if not isinstance(payload, bytearray) or payload.find(b"\\") >= 0:  # JSON may write / as \/
                data = binascii.a2b_base64(data[start:end])
            else:
                got = 0
                while start < end:  # on boards the bytes replace the head of the packet, 1024 characters at a time
                    piece = binascii.a2b_base64(data[start : min(start + 1024, end)])
                    data[got : got + len(piece)] = piece
                    got += len(piece)
                    start += 1024
                data = data[:got]
            if len(data) != size:
                raise UpdateError("size", "file %d block %d" % (self._file, at))
            self._sink(at, data)
            self._next += 1
        except (OSError, UpdateError, MemoryError) as error:
            self._error = error
        except (ValueError, TypeError, LookupError, AttributeError):
            self._error = UpdateError("stream", "malformed message")
        finally:
            if self._error or self._left <= 0 or self._next * _BLOCK >= self._size:
                self._event.set()
