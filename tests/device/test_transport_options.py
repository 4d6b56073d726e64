# SPDX-License-Identifier: Apache-2.0
"""Member `transport` of agent.json: what is refused and by which name, and what each option does on the wire."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from edgeagent import config, transports
from edgeagent.errors import ConfigError, ProtocolError, TransportError
from edgeagent.mqtt.client import Client
from edgeagent.ports.linux import LinuxPort, preflight
from tests.device.transport_contract import AWS, AWS5, PAHO, PAHO5, Case, Impostor, Site, failure, play, until
from tests.fleet.broker_support import yard

pytest.importorskip("paho.mqtt.client")
pytest.importorskip("awscrt")

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
PKCS11 = {"library": "/lib/token.so", "pin_file": "/etc/pin"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.log._sink", lambda line: None)


def parsed(transport: Any = None, **members: Any) -> config.Config:
    data = {"endpoint": "e", "ca": "ca", "thing_name": "t", "certificate": "c", "key": "k", **members}
    if transport is not None:
        data["transport"] = transport
    return config.parse(data)


def made(settings: config.Config) -> Any:
    return transports.make_client(settings, LinuxPort(settings), "t", "c", "k")


# --- choosing


def test_paho_is_the_default_and_the_built_in_client_steps_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(made(parsed())).__name__ == "PahoTransport"
    monkeypatch.setattr(transports, "_installed", lambda kind: False)
    assert type(made(parsed())) is Client


@pytest.mark.parametrize(
    ("transport", "name"),
    [
        ("builtin", "Client"),
        ("paho", "PahoTransport"),
        ("awsiotsdk", "AwsTransport"),
        ({"type": "builtin"}, "Client"),
        (PAHO5, "PahoTransport"),
        (AWS5, "AwsTransport"),
    ],
)
def test_a_name_or_an_object_chooses(transport: Any, name: str) -> None:
    assert type(made(parsed(transport))).__name__ == name


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "_installed", lambda kind: False)
    for kind, package in (("paho", "paho-mqtt"), ("awsiotsdk", "awsiotsdk")):
        with pytest.raises(ConfigError, match=package):
            transports.settings(parsed(kind))


def test_defaults() -> None:
    nothing = {"alpn": "", "proxy": None, "websocket": False, "path": "/mqtt", "pkcs11": None}
    assert transports.settings(parsed("paho")) == {"type": "paho", "protocol": "3.1.1", **nothing}
    assert transports.settings(parsed("awsiotsdk")) == {"type": "awsiotsdk", "protocol": "5", **nothing}
    assert transports.settings(parsed("paho", port=443))["alpn"] == "x-amzn-mqtt-ca"
    assert transports.settings(parsed({"type": "paho", "websocket": True}, port=443))["alpn"] == "http/1.1"
    assert transports.settings(parsed({"type": "paho", "proxy": {"host": "p", "port": 1}}))["proxy"] == {
        "host": "p",
        "port": 1,
        "type": "http",
    }


@pytest.mark.parametrize(
    ("transport", "named"),
    [
        (7, "transport"),
        ([], "transport"),
        ("carrier-pigeon", "type"),
        ({}, "type"),
        ({"type": "builtin", "protocol": 5}, "protocol"),
        ({"type": "paho", "protocol": 4}, "protocol"),
        ({"type": "paho", "protocol": True}, "protocol"),
        ({"type": "paho", "websocket": "yes"}, "websocket"),
        ({"type": "paho", "path": "mqtt"}, "path"),
        ({"type": "paho", "path": "/a b"}, "path"),
        ({"type": "paho", "path": "/a\r\nX: y"}, "path"),
        ({"type": "paho", "alpn": ""}, "alpn"),
        ({"type": "paho", "alpn": ["mqtt"]}, "alpn"),
        ({"type": "paho", "proxy": "p:1"}, "proxy"),
        ({"type": "paho", "proxy": {"port": 1}}, "proxy: host"),
        ({"type": "paho", "proxy": {"host": "p"}}, "proxy: port"),
        ({"type": "paho", "proxy": {"host": "p", "port": 0}}, "proxy: port"),
        ({"type": "paho", "proxy": {"host": "p", "port": True}}, "proxy: port"),
        ({"type": "paho", "proxy": {"host": "p", "port": 1, "type": "ftp"}}, "proxy: type"),
        ({"type": "paho", "proxy": {"host": "p", "port": 1, "user": "u"}}, "proxy: user"),
        ({"type": "paho", "pkcs11": PKCS11}, "pkcs11"),
        ({"type": "paho", "speed": 9}, "speed"),
        ({"type": "awsiotsdk", "websocket": True}, "websocket"),
        ({"type": "awsiotsdk", "proxy": {"host": "p", "port": 1, "type": "socks5"}}, "proxy: type"),
        ({"type": "awsiotsdk", "pkcs11": "token"}, "pkcs11"),
        ({"type": "awsiotsdk", "pkcs11": {**PKCS11, "pin": "1234"}}, "pkcs11: pin"),
        ({"type": "awsiotsdk", "pkcs11": {"library": "/l"}}, "pkcs11: pin_file"),
        ({"type": "awsiotsdk", "pkcs11": {**PKCS11, "library": "l.so"}}, "pkcs11: library"),
        ({"type": "awsiotsdk", "pkcs11": {**PKCS11, "label": 5}}, "pkcs11: label"),
    ],
)
def test_what_is_wrong_is_named(transport: Any, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        transports.settings(parsed(transport))
    assert named in str(caught.value)


def test_awsiotsdk_cannot_check_another_name() -> None:
    with pytest.raises(ConfigError, match="server_hostname"):
        transports.settings(parsed("awsiotsdk", server_hostname="other"))


def test_a_wrong_transport_is_said_before_the_agent_starts() -> None:
    papers = yard().credentials("dev")
    found = parsed("pigeon", ca=str(yard().ca_path), certificate=str(papers.cert_path), key=str(papers.key_path))
    with pytest.raises(ConfigError, match="type"):
        preflight.check(found, LinuxPort(found))


# --- on the wire


@pytest.mark.parametrize(
    ("transport", "text"), [(PAHO5, "CONNACK_1"), (AWS5, "without MQTT 5")], ids=["paho", "awsiotsdk"]
)
def test_mqtt_5_to_a_server_of_3_1_1_is_one_clear_error(tmp_path: Path, transport: dict[str, Any], text: str) -> None:
    async def scenario(site: Site) -> None:
        error = await asyncio.wait_for(failure(site.line().client.connect()), 5)
        assert text in str(error)

    play(Case("embedded", transport), tmp_path, scenario)


@pytest.mark.parametrize("size", [300_000, 8_000_000])
def test_a_packet_that_no_server_should_send_ends_the_link(tmp_path: Path, size: int) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer()
        line = site.line()
        await line.up()
        await line.client.subscribe(["dev/in"])
        await peer.publish("dev/in", bytes(size))
        error = await line.ended()
        assert isinstance(error, ProtocolError)
        assert str(error) == "bad length"

    play(Case("mosquitto", PAHO), tmp_path, scenario)


class Proxy:
    """An HTTP and SOCKS proxy that connects everybody to one port. `seen`: what was asked for."""

    def __init__(self, port: int) -> None:
        self._far = port
        self.seen: list[str] = []

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"\x05":  # RFC 1928
            await reader.readexactly((await reader.readexactly(1))[0])
            writer.write(b"\x05\x00")
            head = await reader.readexactly(4)
            address = await reader.readexactly((await reader.readexactly(1))[0] if head[3] == 3 else 4)
            name = address.decode() if head[3] == 3 else ".".join(map(str, address))
            self.seen.append(f"socks5 {name}:{int.from_bytes(await reader.readexactly(2), 'big')}")
            writer.write(b"\x05\x00\x00\x01" + bytes(6))
        else:
            request = first + await reader.readuntil(b"\r\n\r\n")
            self.seen.append("http " + request.split()[1].decode())
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
            except OSError:
                pass
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


@pytest.mark.parametrize(
    ("transport", "kind"),
    [(PAHO, "http"), (PAHO, "socks5"), (AWS, "http")],
    ids=["paho-http", "paho-socks5", "awsiotsdk-http"],
)
def test_everything_goes_through_the_proxy(tmp_path: Path, transport: dict[str, Any], kind: str) -> None:
    pytest.importorskip("socks")

    async def scenario(site: Site) -> None:
        async with Proxy(site.cable.port) as proxy:
            member = {**transport, "proxy": {"host": "127.0.0.1", "port": proxy.port, "type": kind}}
            line = site.line(transport=member, port=4)  # only the proxy knows a way
            await line.up()
            await line.client.publish("dev/x", b"")
            await line.client.close()
            assert proxy.seen == [f"{kind} localhost:4"]

    play(Case("embedded", transport), tmp_path, scenario)


@pytest.mark.parametrize("transport", [PAHO, AWS], ids=["paho", "awsiotsdk"])
def test_the_application_protocol_is_offered(tmp_path: Path, transport: dict[str, Any]) -> None:
    async def scenario(site: Site) -> None:
        server = yard().ca_path.parent
        async with Impostor(server / "server.pem", server / "server.key") as impostor:
            line = site.line(transport={**transport, "alpn": "x-amzn-mqtt-ca"}, port=impostor.port)
            await failure(line.client.connect())
            await until(lambda: impostor.greeted, "CONNECT")
            assert impostor.alpn == "x-amzn-mqtt-ca"

    play(Case("embedded", transport), tmp_path, scenario)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Members of `pkcs11` for a software token that holds the key of "dev"."""
    if shutil.which("softhsm2-util") is None or not Path(SOFTHSM).exists():
        pytest.skip("needs the system package softhsm2")
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    (folder / "pin").write_text("1234\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    secret = serialization.load_pem_private_key(yard().credentials("dev").key_path.read_bytes(), None)
    key = str(folder / "key.pem")
    Path(key).write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    for arguments in (
        ("--init-token", "--free", "--label", "edge", "--so-pin", "5678"),
        ("--import", key, "--token", "edge", "--label", "device", "--id", "01"),
    ):
        done = subprocess.run(["softhsm2-util", *arguments, "--pin", "1234"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    yield {"library": SOFTHSM, "pin_file": str(folder / "pin"), "token": "edge", "label": "device"}
    del os.environ["SOFTHSM2_CONF"]


def test_a_private_key_stays_in_its_token(tmp_path: Path, token: dict[str, str]) -> None:
    async def scenario(site: Site) -> None:
        papers = yard().credentials("dev")._replace(key_path=tmp_path / "in-the-token")
        line = site.line(credentials=papers, transport={**AWS, "pkcs11": token})
        await line.up()
        await line.client.publish("dev/x", b"")

    play(Case("embedded", AWS), tmp_path, scenario)


def test_a_wrong_pin_is_a_transport_error_that_does_not_show_it(tmp_path: Path, token: dict[str, str]) -> None:
    (tmp_path / "pin").write_text("9876")

    async def scenario(site: Site) -> None:
        papers = yard().credentials("dev")._replace(key_path=tmp_path / "in-the-token")
        member = {**AWS, "pkcs11": {**token, "pin_file": str(tmp_path / "pin")}}
        error = await failure(site.line(credentials=papers, transport=member).client.connect())
        assert isinstance(error, TransportError)
        assert "9876" not in str(error)

    play(Case("embedded", AWS), tmp_path, scenario)


def test_preflight_does_not_look_for_a_key_that_is_in_a_token(tmp_path: Path) -> None:
    papers = yard().credentials("dev")
    found = parsed(
        {**AWS, "pkcs11": PKCS11},
        ca=str(yard().ca_path),
        certificate=str(papers.cert_path),
        key="in-the-token",
        state_dir=str(tmp_path),
    )
    preflight.check(found, LinuxPort(found))
    found.certificate = str(papers.key_path)
    with pytest.raises(ConfigError, match="certificate"):
        preflight.check(found, LinuxPort(found))
