# SPDX-License-Identifier: Apache-2.0
"""What the contract of the transports is played on: brokers, a cable between them and the client, and a client's user.

A Case is one transport on one broker. `play(case, folder, scenario)` runs `scenario(site)` against it; everything of a
test but Mosquitto, and the threads of the libraries, lives in one event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgeagent import config
from edgeagent.errors import AgentError
from edgeagent.ports.linux import LinuxPort
from edgeagent.transports import make_client
from edgefleet.broker import Limits
from tests.fleet.broker_support import WAIT, Credentials, Grant, Peer, World, Yard, new_yard, world, yard
from tests.support import MOSQUITTO

BUILTIN: dict[str, Any] = {"type": "builtin"}
SUBSCRIPTIONS = 20  # that the embedded broker allows a client here
PAHO: dict[str, Any] = {"type": "paho"}
PAHO_WS: dict[str, Any] = {"type": "paho", "websocket": True}
PAHO5: dict[str, Any] = {"type": "paho", "protocol": 5}
AWS: dict[str, Any] = {"type": "awsiotsdk", "protocol": "3.1.1"}
AWS5: dict[str, Any] = {"type": "awsiotsdk", "protocol": 5}


class Case(NamedTuple):
    """transport: member of agent.json."""

    broker: str
    transport: dict[str, Any]

    def __str__(self) -> str:
        websocket = "websocket-" if self.websocket else ""
        return f"{self.transport['type']}-{websocket}{self.transport.get('protocol', '3.1.1')}-{self.broker}"

    @property
    def websocket(self) -> bool:
        return "websocket" in self.transport

    @property
    def five(self) -> bool:
        return self.transport.get("protocol") == 5

    @property
    def awkward(self) -> bool:
        """The AWS runtime with MQTT 3.1.1: see what it cannot do in edgeagent/transports/aws.py."""
        return self.transport["type"] == "awsiotsdk" and not self.five


CASES = [
    *(Case("embedded", transport) for transport in (BUILTIN, PAHO, AWS)),
    *(Case("mosquitto", transport) for transport in (BUILTIN, PAHO, PAHO5, PAHO_WS, AWS, AWS5)),
]


ON_EMBEDDED = pytest.mark.parametrize(
    "case", [case for case in CASES if case.broker == "embedded"], indirect=True, ids=str
)
NOT_AWKWARD = pytest.mark.parametrize("case", [case for case in CASES if not case.awkward], indirect=True, ids=str)


@functools.cache
def stranger() -> Yard:
    """Another CA."""
    return new_yard()


class Ports(NamedTuple):
    mqtt: int
    websocket: int


@functools.cache
def mosquitto() -> Ports:
    """A Mosquitto that runs until the tests end, on mutual TLS with the certificates of yard()."""
    folder = Path(tempfile.mkdtemp())
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        ports = Ports(one.getsockname()[1], two.getsockname()[1])
    server = yard().ca_path.parent
    tls = (
        f"cafile {yard().ca_path}\ncertfile {server}/server.pem\nkeyfile {server}/server.key\n"
        "require_certificate true\nsocket_domain ipv4\n"
    )
    (folder / "mosquitto.conf").write_text(
        f"listener {ports.mqtt} 127.0.0.1\n{tls}listener {ports.websocket}\n{tls}protocol websockets\n"
        "allow_anonymous true\nset_tcp_nodelay true\nuser root\n"
    )
    process = subprocess.Popen([str(MOSQUITTO), "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)

    def stop() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder)

    atexit.register(stop)
    deadline = time.monotonic() + 10
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "mosquitto did not start"
                time.sleep(0.05)
    return ports


class Cable:
    """A TCP relay that can be cut or frozen. `port` is the client's end. It carries what both TLS ends say."""

    def __init__(self, port: int) -> None:
        self._far = port
        self._writers: list[asyncio.StreamWriter] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """After `stop`: on the same port again."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far)
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        if self._flowing.is_set():
            sink.close()

    def cut(self) -> None:
        """Both ends get a reset."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Nothing passes any more, and nobody is told: a half-open link."""
        self._flowing.clear()

    def thaw(self) -> None:
        """For the next link; what was frozen is lost."""
        self.cut()
        self._flowing.set()

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()


class Line:
    """A client and its user: `messages` of everything it received, `reason` why run() ended."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.messages: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.failing = False  # the handler
        self._run: asyncio.Task[AgentError]
        client.on("#", self._put)

    async def _put(self, topic: str, payload: bytearray) -> None:
        await asyncio.sleep(0)
        if self.failing:
            raise OSError("disk full")
        self.messages.put_nowait((topic, bytes(payload)))

    async def up(self) -> bool:
        """Connect and run; was the session kept?"""
        present: bool = await self.client.connect()
        self._run = asyncio.create_task(self._reason())
        await asyncio.sleep(0)  # it has begun
        return present

    async def _reason(self) -> AgentError:
        try:
            await self.client.run()
        except AgentError as error:
            return error
        raise AssertionError("run() returned")

    async def ended(self, seconds: float = WAIT) -> AgentError:
        return await asyncio.wait_for(asyncio.shield(self._run), seconds)

    async def next(self) -> tuple[str, bytes]:
        return await asyncio.wait_for(self.messages.get(), WAIT)

    async def down(self) -> None:
        """Close, and wait until run() has ended too."""
        await self.client.close()
        await self.ended()

    async def drop(self) -> None:
        """Cancel run()."""
        self._run.cancel()
        await asyncio.wait([self._run])


class Site:
    """A broker and what a test needs around it."""

    def __init__(self, case: Case, cable: Cable, here: World | None) -> None:
        self.case = case
        self.cable = cable
        self.here = here
        self._direct = here.port if here else mosquitto().mqtt
        self._lines: list[Line] = []

    def line(
        self,
        name: str = "dev",
        keepalive: int = 60,
        clean: bool = True,
        will: tuple[str, str] | None = None,
        credentials: Credentials | None = None,
        ca: Path | None = None,
        transport: dict[str, Any] | None = None,
        port: int = 0,
        **members: Any,
    ) -> Line:
        """A client that is not connected yet. Its topics are dev/... and shared/... (the embedded broker's policy)."""
        papers = credentials or yard().credentials("dev")
        data = {
            "endpoint": "localhost",
            "port": port or self.cable.port,
            "ca": str(ca or yard().ca_path),
            "thing_name": name,
            "certificate": str(papers.cert_path),
            "key": str(papers.key_path),
            "transport": transport or self.case.transport,
            **members,
        }
        made = config.parse(data)
        made.keepalive = keepalive  # shorter than a file may ask for
        client = make_client(made, LinuxPort(made), name, str(papers.cert_path), str(papers.key_path), will, clean)
        self._lines.append(Line(client))
        return self._lines[-1]

    async def peer(self, *filters: str) -> Peer:
        """A client that is none of the transports, and may do everything. It does not use the cable."""
        if self.here:
            return await self.here.watcher(*filters) if filters else await self.here.device("fleet", "watcher")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._direct, ssl=yard().credentials("fleet").context, server_hostname="127.0.0.1"
        )
        peer = Peer(reader, writer)
        assert (await peer.connect("watcher"))[1] == 0
        if filters:
            await peer.subscribe(*filters)
        return peer

    async def close(self) -> None:
        for line in self._lines:
            await line.client.close()


Scenario = Callable[[Site], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def site(case: Case, folder: Path) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        here = None
        if case.broker == "embedded":
            here = await stack.enter_async_context(world(folder, Limits(subscriptions=SUBSCRIPTIONS)))
            person = here.register.enroll("dev", yard().credentials("dev").certificate_id)
            person.grants.append(Grant("iot:RetainPublish", "topic/dev/*"))
        cable = Cable(here.port if here else mosquitto().websocket if case.websocket else mosquitto().mqtt)
        await cable.start()
        stack.push_async_callback(cable.stop)
        made = Site(case, cable, here)
        stack.push_async_callback(made.close)
        yield made


def play(case: Case, folder: Path, scenario: Scenario) -> None:
    if case.broker == "mosquitto" and MOSQUITTO is None:
        pytest.skip("needs the system package mosquitto")

    async def main() -> None:
        async with asyncio.timeout(40), site(case, folder) as made:
            await scenario(made)

    asyncio.run(main())


async def failure(call: Awaitable[Any]) -> AgentError:
    """The AgentError of a call that has to fail."""
    try:
        await call
    except AgentError as error:
        return error
    raise AssertionError("no error")


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        await asyncio.sleep(0.01)


async def settled(line: Line) -> None:
    """The acknowledgements of what was received are out: packets are sent in order."""
    await line.client.publish("dev/marker", b"")


async def forget(site: Site, line: Line, name: str) -> None:
    """Mosquitto outlives the test: its sessions are not to."""
    await line.down()
    clean = site.line(name)
    await clean.up()
    await clean.down()


class Impostor:
    """A TLS server with a certificate of its own choice, that never gets as far as MQTT."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.load_verify_locations(yard().ca_path)
        self._context.verify_mode = ssl.CERT_REQUIRED  # else the AWS runtime refuses it for that
        self._context.set_alpn_protocols(["http/1.1", "x-amzn-mqtt-ca"])
        self.greeted = False  # somebody sent something through the TLS session
        self.alpn: str | None = None  # what was agreed on

    async def __aenter__(self) -> Impostor:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.alpn = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        self.greeted = bool(await reader.read(1))
        writer.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
