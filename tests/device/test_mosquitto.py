# SPDX-License-Identifier: Apache-2.0
"""The MQTT client with both ports against a broker that is not ours: Debian's Mosquitto, on mutual TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgefleet.pki import Authority
from tests.device.test_mqtt_tls import RUNTIMES, Device, Runtime
from tests.fleet.broker_support import Credentials
from tests.support import MOSQUITTO

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the system package mosquitto")


class Broker(NamedTuple):
    port: int
    ca: Path
    credentials: Credentials


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("mosquitto")
    authority = Authority.load_or_create(folder / "pki")
    server_certificate, server_key = authority.issue_server(["localhost"])
    certificate, key = authority.issue_device(None)
    assert key is not None
    files = {"ca": authority.ca_pem, "server": server_certificate, "server-key": server_key, "c": certificate, "k": key}
    for name, text in files.items():
        (folder / f"{name}.pem").write_text(text)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/server.pem\n"
        f"keyfile {folder}/server-key.pem\nrequire_certificate true\nallow_anonymous true\nset_tcp_nodelay true\n"
        "user root\n"
    )
    process = subprocess.Popen([str(MOSQUITTO), "-c", str(folder / "mosquitto.conf")])
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "mosquitto did not start"
            time.sleep(0.05)
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    yield Broker(port, folder / "ca.pem", Credentials("", context, folder / "c.pem", folder / "k.pem"))
    process.terminate()
    process.wait(10)


@pytest.fixture(params=RUNTIMES, ids=lambda runtime: runtime.name)
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    runtime: Runtime = request.param
    return Device(runtime, tmp_path)


def play(device: Device, broker: Broker, scenario: str, name: str) -> dict[str, Any]:
    return asyncio.run(device.play(scenario, broker, broker.credentials, name=name, ca=broker.ca))  # type: ignore[arg-type]


def test_publish_and_receive_at_qos_1(device: Device, mosquitto: Broker) -> None:
    answer = play(device, mosquitto, "echo", "dev-echo")
    assert answer["sizes"] == [0, 1, 4096, 10000]
    assert answer["together"] == list(range(20))


def test_a_persistent_session_is_resumed(device: Device, mosquitto: Broker, request: pytest.FixtureRequest) -> None:
    answer = play(device, mosquitto, "resume", f"dev-resume-{request.node.callspec.id}")
    assert answer == {"sessions": [False, True], "message": "while away"}


def test_a_server_that_is_not_signed_by_our_ca_is_refused(device: Device, mosquitto: Broker, tmp_path: Path) -> None:
    other = Authority.load_or_create(tmp_path / "other")
    (tmp_path / "other-ca.pem").write_text(other.ca_pem)
    broker = mosquitto._replace(ca=tmp_path / "other-ca.pem")
    assert play(device, broker, "connect", "dev-ca")["error"] == "TransportError"
