# SPDX-License-Identifier: Apache-2.0
"""A broker on a real TLS socket, and a peer with its own small MQTT codec, so that the broker's is judged by another.

Everything of a test runs in one event loop: `run(scenario())`. That something does *not* arrive is shown by a marker
message sent behind it, not by waiting.

As a program (`python -m tests.fleet.broker_support STORE`) it is a broker process to be killed: it prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import functools
import json
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edgefleet import pki
from edgefleet.broker import Broker, ConnectionRef, Denied, Limits
from edgefleet.messages import Outgoing, Request
from edgefleet.store import Store

WAIT = 5.0  # seconds for anything that must happen
EVENTS = "$aws/events/"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario, 25)

    asyncio.run(bounded())


class Credentials(NamedTuple):
    certificate_id: str
    context: ssl.SSLContext
    cert_path: Path
    key_path: Path


class Yard:
    """A CA, a server certificate, and client certificates made when asked for. Kept in a temporary folder."""

    def __init__(self, folder: Path, authority_folder: Path | None = None) -> None:
        self._folder = folder
        self._authority = pki.Authority.load_or_create(authority_folder or folder / "ca")
        self.ca_path = folder / "ca.pem"
        self.ca_path.write_text(self._authority.ca_pem)
        cert, key = self._authority.issue_server(["localhost", "127.0.0.1"])
        server_cert, server_key = folder / "server.pem", folder / "server.key"
        server_cert.write_text(cert)
        server_key.write_text(key)
        self.server_context = pki.server_context(server_cert, server_key, self.ca_path)

    @functools.cache  # noqa: B019  (one Yard lives as long as the test process)
    def credentials(self, name: str, ca_path: Path | None = None) -> Credentials:
        """ca_path: the CA the client trusts, if not this one."""
        cert, key = self._authority.issue_device()
        assert key is not None
        cert_path, key_path = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert_path.write_text(cert)
        key_path.write_text(key)
        context = ssl.create_default_context(cafile=str(ca_path or self.ca_path))
        context.load_cert_chain(cert_path, key_path)
        return Credentials(pki.certificate_id(cert), context, cert_path, key_path)


_folders: list[tempfile.TemporaryDirectory[str]] = []


def new_yard() -> Yard:
    _folders.append(tempfile.TemporaryDirectory())
    return Yard(Path(_folders[-1].name))


yard = functools.cache(new_yard)


class Grant(NamedTuple):
    action: str
    resource: str  # shell pattern


@dataclass
class Person:
    """The Principal of the test authorizer."""

    certificate_id: str
    thing_name: str | None
    grants: list[Grant]

    def allows(self, action: str, resource: str) -> bool:
        return any(
            fnmatch.fnmatchcase(action, grant.action) and fnmatch.fnmatchcase(resource, grant.resource)
            for grant in self.grants
        )


@dataclass
class Register:
    """An Authorizer by certificate id. A device called X may connect as X, and use `X/...` and its own `$aws` topics;
    "fleet" may do everything.
    """

    known: dict[str, Person] = field(default_factory=dict)
    forgotten: int = 0
    seen: list[tuple[str, str, bool, str | None]] = field(default_factory=list)

    def enroll(self, name: str, certificate_id: str) -> Person:
        if certificate_id not in self.known:
            if name == "fleet":
                grants = [Grant("*", "*")]
            else:
                own = (f"{name}/*", f"$aws/things/{name}/*", "$aws/rules/*", "shared/*")
                grants = [Grant("iot:Connect", f"client/{name}*")]
                grants += [Grant("iot:Publish", f"topic/{topic}") for topic in own]
                grants += [Grant("iot:Receive", f"topic/{topic}") for topic in own]
                grants += [Grant("iot:Subscribe", f"topicfilter/{topic}") for topic in own]
            self.known[certificate_id] = Person(certificate_id, None if name == "fleet" else name, grants)
        return self.known[certificate_id]

    def connect(
        self, certificate_der: bytes, client_id: str, source_ip: str, *, persistent: bool, will_topic: str | None
    ) -> Person:
        self.seen.append((client_id, source_ip, persistent, will_topic))
        person = self.known.get(pki.certificate_id(certificate_der))
        if person is None:
            raise Denied("unknown certificate")
        if not person.allows("iot:Connect", f"client/{client_id}"):
            raise Denied("not this client id")
        return person

    def certificate_active(self, certificate_der: bytes) -> bool:
        return pki.certificate_id(certificate_der) in self.known

    def forget(self) -> None:
        self.forgotten += 1


class Received(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int

    def document(self) -> Any:
        return json.loads(self.payload)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes) -> bytes:
    length, size = len(body), b""
    while True:
        length, low = divmod(length, 128)
        size += bytes((low | (128 if length else 0),))
        if not length:
            return bytes((first,)) + size + body


def connect_packet(
    client_id: str,
    clean: bool = True,
    keep_alive: int = 60,
    will: tuple[str, bytes, int, bool] | None = None,
    username: str | None = None,
    level: int = 4,
) -> bytes:
    flags = 2 if clean else 0
    body = text(client_id)
    if will is not None:
        flags |= 4 | will[2] << 3 | will[3] << 5
        body += text(will[0]) + text(will[1])
    if username is not None:
        flags |= 0x80
        body += text(username)
    return packet(0x10, text("MQTT") + bytes((level, flags)) + keep_alive.to_bytes(2, "big") + body)


def publish_packet(topic: str, payload: bytes, qos: int = 0, retain: bool = False, packet_id: int = 1) -> bytes:
    ident = packet_id.to_bytes(2, "big") if qos else b""
    return packet(0x30 | qos << 1 | retain, text(topic) + ident + payload)


def subscribe_packet(packet_id: int, filters: list[tuple[str, int]]) -> bytes:
    return packet(0x82, packet_id.to_bytes(2, "big") + b"".join(text(name) + bytes((qos,)) for name, qos in filters))


class Peer:
    """A client. `messages` and `log` (packet types in the order of arrival) are open to the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.messages: asyncio.Queue[Received] = asyncio.Queue()
        self.log: list[str] = []
        self.acknowledge = True
        self._reader = reader
        self._answers: dict[tuple[int, int], asyncio.Future[bytes]] = {}
        self._id = 0
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                first = (await self._reader.readexactly(1))[0]
                length, shift = 0, 0
                while True:
                    byte = (await self._reader.readexactly(1))[0]
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                self._take(first, await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._closed.set_result(None)
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("closed by the broker"))

    def _take(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind != 3:
            ident = int.from_bytes(body[:2], "big") if kind in (4, 9, 11) else 0
            self.log.append({2: "CONNACK", 4: "PUBACK", 9: "SUBACK", 11: "UNSUBACK", 13: "PINGRESP"}[kind])
            self._answer(kind, ident).set_result(body)
            return
        size = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
        qos = first >> 1 & 3
        ident = int.from_bytes(rest[:2], "big") if qos else 0
        assert not first & 8, "DUP is not used on redelivery"
        message = Received(topic, rest[2:] if qos else rest, qos, bool(first & 1), ident)
        self.log.append(f"PUBLISH {topic}")
        if qos and self.acknowledge:
            self.puback(ident)
        self.messages.put_nowait(message)

    def _answer(self, kind: int, ident: int) -> asyncio.Future[bytes]:
        return self._answers.setdefault((kind, ident), asyncio.get_running_loop().create_future())

    async def _ask(self, data: bytes, kind: int, ident: int = 0) -> bytes:
        answer = self._answer(kind, ident)
        if self._closed.done():
            raise ConnectionError("closed by the broker")
        self.writer.write(data)
        try:
            return await asyncio.wait_for(answer, WAIT)
        finally:
            del self._answers[kind, ident]

    def _next_id(self) -> int:
        self._id += 1
        return self._id

    async def connect(self, client_id: str, **options: Any) -> tuple[bool, int]:
        """Options of connect_packet(). Returns (session present, return code)."""
        present, code = await self._ask(connect_packet(client_id, **options), 2)
        return bool(present), code

    async def publish(self, topic: str, payload: bytes = b"", qos: int = 1, retain: bool = False) -> None:
        """QoS 1: returns at PUBACK. Raises ConnectionError if the broker closes instead."""
        ident = self._next_id()
        data = publish_packet(topic, payload, qos, retain, ident)
        if qos:
            await self._ask(data, 4, ident)
        else:
            self.writer.write(data)

    async def subscribe(self, *filters: str, qos: int = 1) -> list[int]:
        ident = self._next_id()
        return list((await self._ask(subscribe_packet(ident, [(name, qos) for name in filters]), 9, ident))[2:])

    async def unsubscribe(self, *filters: str) -> None:
        ident = self._next_id()
        await self._ask(packet(0xA2, ident.to_bytes(2, "big") + b"".join(map(text, filters))), 11, ident)

    async def ping(self) -> None:
        await self._ask(b"\xc0\x00", 13)

    def puback(self, ident: int) -> None:
        self.writer.write(b"\x40\x02" + ident.to_bytes(2, "big"))

    async def next(self) -> Received:
        return await asyncio.wait_for(self.messages.get(), WAIT)

    async def take(self, count: int) -> list[bytes]:
        return [(await self.next()).payload for _ in range(count)]

    async def closed(self) -> None:
        """Returns when the broker has closed the connection."""
        await asyncio.wait_for(asyncio.shield(self._closed), WAIT)

    async def disconnect(self) -> None:
        self.writer.write(b"\xe0\x00")
        await self.closed()

    async def lose(self) -> None:
        """The socket dies without a word."""
        self.writer.transport.abort()
        await self.closed()


class World:
    """A running broker with its surroundings. `requests`: what came on reserved topics; `answer`: what is done then."""

    def __init__(self, folder: Path, limits: Limits | None, clock: Callable[[], float] | None) -> None:
        self.register = Register()
        self.store = Store(folder / "fleet.db")
        self.requests: list[Request] = []
        self.answer: Callable[[Request], list[Outgoing]] = lambda request: []
        options = {} if clock is None else {"clock": clock}
        self.broker = Broker(self.store, self.register, self._handle, limits=limits, **options)
        self.port = 0

    def _handle(self, request: Request, connection: ConnectionRef) -> None:
        self.requests.append(request)
        self.broker.deliver(self.answer(request), connection)

    async def dial(self, credentials: Credentials) -> Peer:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=credentials.context, server_hostname="127.0.0.1"
        )
        return Peer(reader, writer)

    async def device(self, name: str, client_id: str | None = None, **options: Any) -> Peer:
        """A connected device with a certificate of its own; "fleet" may do everything."""
        credentials = yard().credentials(name)
        self.register.enroll(name, credentials.certificate_id)
        peer = await self.dial(credentials)
        _, code = await peer.connect(client_id or name, **options)
        assert code == 0
        return peer

    async def watcher(self, *filters: str, client_id: str = "watcher") -> Peer:
        """The fleet, subscribed to `filters`."""
        peer = await self.device("fleet", client_id)
        assert await peer.subscribe(*filters) == [1] * len(filters)
        return peer

    async def disconnected_reason(self, watcher: Peer, client_id: str) -> str:
        """The reason in the disconnect event of `client_id`; watcher is subscribed to presence events."""
        while True:
            message = await watcher.next()
            if message.topic == f"{EVENTS}presence/disconnected/{client_id}":
                return str(message.document()["disconnectReason"])

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        with self.store.reading() as tx:
            return [dict(row) for row in tx.all(sql, parameters)]


@contextlib.asynccontextmanager
async def world(
    folder: Path, limits: Limits | None = None, clock: Callable[[], float] | None = None
) -> AsyncIterator[World]:
    here = World(folder, limits, clock)
    here.port = await here.broker.start("127.0.0.1", 0, yard().server_context)
    try:
        yield here
    finally:
        await here.broker.stop()
        here.store.close()


async def _serve(store_path: str, folder: str) -> None:
    """A broker process that lets every certificate of the CA in `folder` do everything."""

    class Anyone(Register):
        def connect(self, certificate_der: bytes, client_id: str, source_ip: str, **_: Any) -> Person:
            return Person(pki.certificate_id(certificate_der), None, [Grant("*", "*")])

    authority = Path(folder) / "ca"
    server = Yard(Path(tempfile.mkdtemp(dir=folder)), authority)
    broker = Broker(Store(store_path), Anyone(), lambda request, connection: None)
    print(await broker.start("127.0.0.1", 0, server.server_context), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
