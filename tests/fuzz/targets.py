# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: all places of the agent where bytes from outside arrive. A target raises if its rule is broken."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tracemalloc
from typing import Any

from edgeagent import log, topics
from edgeagent.errors import AgentError, JobRejected, ProtocolError
from edgeagent.jobs import document, protocol
from edgeagent.limits import LIMITS
from edgeagent.mqtt import packet
from edgeagent.mqtt.client import Client
from edgeagent.mqtt.rpc import Requests
from edgeagent.shadow import Shadow

TOPIC = "$aws/things/t/jobs/start-next"
RUN_S = 5.0  # far more than any input needs
PEAK_BYTES = 64 * 1024 + 4 * LIMITS.MQTT_PACKET  # of one input, beside the input itself

CONNACK = b"\x20\x02\x00\x00"
PACKETS = [
    b"\x30\x04\x00\x01ax",
    b"\x32\x06\x00\x01a\x00\x09x",
    b"\x3a\x06\x00\x01a\x00\x09x",
    b"\x32\xd0\x0f\x00\x01a\x00\x09" + bytes(1995),
    b"\x30\x80\x80\x02\x00\x01a" + bytes(2000),  # the beginning of 32 KB
    b"\x40\x02\x00\x01",
    b"\x90\x03\x00\x02\x01",
    b"\xb0\x02\x00\x03",
    b"\xd0\x00",
    CONNACK,
]
REPLIES = [
    json.dumps(reply).encode()
    for reply in (
        {"clientToken": "t", "timestamp": 1},
        {"clientToken": "t", "execution": {"jobId": "j", "executionNumber": 1, "status": "IN_PROGRESS"}},
        {"clientToken": "t", "code": "VersionMismatch", "message": "m", "executionState": {"versionNumber": 3}},
        {"statusCode": 400, "errorCode": "InvalidTemplate", "errorMessage": "no"},
        [[[]]],
        None,
    )
]
DOCUMENTS = [
    json.dumps(body).encode()
    for body in (
        {"operation": "reboot"},
        {"operation": "config", "set": {"log_level": 10}, "if": {"engineStarts": {">=": 20000}}},
        {"version": "1.0", "steps": [{"action": {"type": "runHandler", "input": {"handler": "reboot.sh"}}}]},
        {"operation": "x", "list": [1, 2.5, None, True, "ä", [], {}]},
    )
]
DELTAS = [
    json.dumps(body).encode()
    for body in ({"version": 3, "state": {"a": 1}}, {"version": 4, "state": {"a": {"b": None}}, "clientToken": "x"})
]
NAMES = [b"a/b/c\n", b"a/+/c\n", b"a/#\n", b"$aws/things/+/jobs/#\n", b"+\n", b"#\n", b"/\n", b"$aws/things/t/jobs/get"]


def decoders(data: bytes) -> None:
    """Decoders are total: a result within the packet, or ProtocolError."""
    for head in (data[0] if data else 0, 0x30, 0x32, 0x3B, 0x40, 0x90, 0xB0):
        with contextlib.suppress(ProtocolError):
            topic, number, at = packet.decode_publish(head, data)
            assert topic and at <= len(data) and bool(number) == bool(head & 2)
        with contextlib.suppress(ProtocolError):
            number, _ = packet.decode_ack(head, bytearray(data))
            assert 0 <= number < 65536


class _Writer:
    """Takes everything."""

    transport: Any

    def __init__(self) -> None:
        self.transport = self
        self.closed = False

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        pass

    abort = close


async def _session(data: bytes, connack: bytes) -> None:
    async def open_stream() -> Any:
        reader = asyncio.StreamReader()
        reader.feed_data(connack + data)
        reader.feed_eof()
        return reader, writer

    writer = _Writer()
    client = Client(open_stream, "t")
    Requests(client)
    Shadow(Requests(client), "t").on_delta(lambda state, version: None)
    seen: list[int] = []
    client.on("#", lambda topic, payload: seen.append(len(payload)))
    try:
        await client.connect()
        calls = [client.publish("a", b"x"), client.subscribe(["a"]), client.unsubscribe(["a"])]
        tasks = [asyncio.create_task(call) for call in calls]
        try:
            await client.run()
        finally:
            for end in await asyncio.gather(*tasks, return_exceptions=True):
                assert end is None or isinstance(end, AgentError), repr(end)
    except AgentError:
        pass
    assert not client.connected and not client._open and writer.closed
    assert all(size <= LIMITS.MQTT_PACKET for size in seen)


def reader(data: bytes) -> None:
    """The whole client: run() ends with an AgentError, in time, in bounded memory; so do those who wait."""
    with contextlib.redirect_stdout(io.StringIO()):
        for connack in (CONNACK, b""):
            asyncio.run(asyncio.wait_for(_session(data, connack), RUN_S))


def memory(data: bytes) -> None:
    """The same, measured."""
    reader(data)  # caches
    tracemalloc.start()
    try:
        reader(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < PEAK_BYTES + 8 * len(data), peak


class _Wire:
    """A client that answers a request at once."""

    def __init__(self, answer: bytes, ending: str) -> None:
        self.oversized: list[Any] = []
        self.subscribe = None
        self._answer, self._ending = answer, ending
        self._result: Any = self

    def on(self, topic: str, handler: Any) -> None:
        self._handler = handler

    def done(self, key: str, answer: Any) -> None:
        self._result = answer

    async def request(self, topic: str, data: bytes, key: str, seconds: float | None) -> Any:
        token = json.dumps(json.loads(data).get("clientToken")).encode()
        self._handler(topic + self._ending, bytearray(self._answer.replace(b'"t"', token)))
        if isinstance(self._result, Exception):
            raise self._result
        return {} if self._result is self else self._result


def replies(data: bytes) -> None:
    """An answer is an object, or the call fails with an AgentError."""
    for ending in (topics.ACCEPTED, topics.REJECTED):
        for token in (True, False):
            with contextlib.suppress(AgentError):
                answer = asyncio.run(Requests(_Wire(data, ending)).call(TOPIC, {}, token=token))
                assert isinstance(answer, dict)
                found = protocol.execution(answer)
                assert found is None or protocol.is_name(found["jobId"])


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")


def documents(data: bytes) -> None:
    """A document names an operation, or is rejected with a reason of one line."""
    body = _decoded(data)
    try:
        assert protocol.is_name(document.parse(body))
    except JobRejected as error:
        assert 0 < len(str(error)) <= 300 and "\n" not in str(error), str(error)
    if isinstance(body, dict):
        details = protocol.clean_details(body)
        assert len(details) <= 10 and all(len(value) <= 1024 for value in details.values())


def deltas(data: bytes) -> None:
    """Whatever arrives as a delta, a handler sees versions that grow, and the reader goes on."""

    async def scenario() -> None:
        message = packet.publish("$aws/things/t/shadow/update/delta", len(data), 0, False) + data
        good = DELTAS[0].replace(b"3", b"9" * 30)
        message += packet.publish("$aws/things/t/shadow/update/delta", len(good), 0, False) + good

        async def open_stream() -> Any:
            stream = asyncio.StreamReader()
            stream.feed_data(CONNACK + message)
            stream.feed_eof()
            return stream, _Writer()

        client = Client(open_stream, "t")
        versions: list[int] = []
        Shadow(Requests(client), "t").on_delta(lambda state, version: versions.append(version))
        await client.connect()
        with contextlib.suppress(AgentError):
            await client.run()
        assert versions == sorted(versions) and versions, versions

    with contextlib.redirect_stdout(io.StringIO()):
        asyncio.run(asyncio.wait_for(scenario(), RUN_S))


def _matches(name: list[str], topic: list[str]) -> bool:
    """MQTT 3.1.1, 4.7, written as a recursion."""
    if not name or not topic:
        return not name and not topic
    if name == ["#"]:
        return True
    return name[0] in ("+", topic[0]) and _matches(name[1:], topic[1:])


def filters(data: bytes) -> None:
    """Matching gives what the standard's text says, for any two strings."""
    name, _, topic = data.decode("utf-8", "replace").partition("\n")
    if name.count("/") > 200 or topic.count("/") > 200:
        return
    expected = not (topic.startswith("$") and not name.startswith("$")) and _matches(name.split("/"), topic.split("/"))
    assert topics.matches(name, topic) == expected, (name, topic)


TARGETS = {
    "decoders": (decoders, PACKETS),
    "reader": (reader, PACKETS),
    "memory": (memory, PACKETS),
    "replies": (replies, REPLIES),
    "documents": (documents, DOCUMENTS),
    "deltas": (deltas, DELTAS),
    "filters": (filters, NAMES),
}
log.configure(sink=print)
