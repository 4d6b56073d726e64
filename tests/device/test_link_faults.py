# SPDX-License-Identifier: Apache-2.0
"""The MQTT client over a bad link, on both runtimes, in front of the embedded broker and of Mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from hil.link_faults import Fault, Framer, LinkFaults, main, parse
from tests.device.test_mqtt_tls import RUNTIMES, Device, Runtime, flash
from tests.fleet.broker_support import Peer, world, yard
from tests.support import MOSQUITTO, ROOT

PROGRAM = ROOT / "tests" / "device" / "link_program.py"
SESSION_S = 20  # for a session with one bad link
WAIT_S = 6  # the longest wait in it: a connect of 2 s; a publish of 2 s that has to wait for a link
MESSAGES = ["m0", "m1", "m2"]


class Program:
    """link_program.py, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, *words: object, seconds: float = SESSION_S) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        read = b""
        async with asyncio.timeout(seconds):
            while line := await self._process.stdout.readline():
                read += line
                with contextlib.suppress(ValueError):
                    return dict(json.loads(line))
        raise AssertionError(read.decode())


@contextlib.asynccontextmanager
async def program(runtime: Runtime, folder: Path, port: int, tls: bool = False) -> AsyncIterator[Program]:
    arguments = [str(port)]
    if tls:
        device, own = Device(runtime, folder), yard().credentials("dev")
        arguments += ["localhost", *(device._file(path) for path in (yard().ca_path, own.cert_path, own.key_path))]
    process = await asyncio.create_subprocess_exec(
        *runtime.command,
        str(PROGRAM),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MICROPYPATH": f"{flash()}:.frozen"},
        cwd=folder,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Bench:
    """A broker behind a proxy, and the fleet's side of sessions. `tls`: the device speaks it through the proxy."""

    def __init__(self, proxy: LinkFaults, fleet: Peer, device: Program) -> None:
        self.proxy, self.fleet, self.device = proxy, fleet, device
        self._count = 0

    async def session(self, *faults: str) -> dict[str, Any]:
        """One session whose first connection has the faults. What must hold in all of them is asserted here."""
        self._count += 1
        name = f"s{self._count}"
        self.proxy.faults, self.proxy.bad = [parse(fault) for fault in faults], 1
        out: list[bytes] = []
        assert await self.fleet.subscribe(f"dev/{name}/out") == [1]

        async def answer() -> None:
            while True:
                message = await self.fleet.messages.get()
                if not out:
                    for n in range(3):
                        await self.fleet.publish(f"dev/{name}/in", b"i%d" % n)
                out.append(message.payload)

        answering = asyncio.create_task(answer())
        try:
            found = await self.device.ask("session", name)
        except TimeoutError:
            raise AssertionError(f"{faults}: no end after {SESSION_S} s, out {out}, {self.proxy.struck}") from None
        # What is under way to the fleet arrives before the answer to this.
        await self.fleet.ping()
        await asyncio.sleep(0)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await self.fleet.unsubscribe(f"dev/{name}/out")
        assert sorted(found["acknowledged"]) == MESSAGES, (faults, found)
        assert {text.decode() for text in out} == set(MESSAGES), (faults, found)
        assert set(found["received"]) == {"i0", "i1", "i2"}, (faults, found)
        assert found["slowest"] < WAIT_S, (faults, found)
        for end in found["ends"]:
            assert end.startswith(("TransportError", "ProtocolError")), (faults, found)
        return found


Scenario = Callable[[Bench], Coroutine[Any, Any, None]]


async def _embedded(folder: Path, runtime: Runtime, tls: bool, scenario: Scenario) -> None:
    async with world(folder) as here:
        own = yard().credentials("dev")
        here.register.enroll("dev", own.certificate_id)
        fleet = await here.device("fleet", "watcher")
        proxy = LinkFaults("127.0.0.1", here.port, tls=None if tls else own.context)
        port = await proxy.start()
        async with program(runtime, folder, port, tls) as device:
            await scenario(Bench(proxy, fleet, device))
        await proxy.stop()


async def _mosquitto(folder: Path, runtime: Runtime, tls: bool, scenario: Scenario) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nuser root\n")
    process = await asyncio.create_subprocess_exec(str(MOSQUITTO), "-c", str(settings), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                assert process.returncode is None and time.monotonic() < deadline, "mosquitto did not start"
                await asyncio.sleep(0.05)
        fleet = Peer(reader, writer)
        await fleet.connect("watcher")
        proxy = LinkFaults("127.0.0.1", port)
        async with program(runtime, folder, await proxy.start()) as device:
            await scenario(Bench(proxy, fleet, device))
        await proxy.stop()
    finally:
        process.terminate()
        await process.wait()


BROKERS = {"embedded": _embedded, "mosquitto": _mosquitto}


@pytest.fixture(params=RUNTIMES, ids=lambda runtime: runtime.name)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found: Runtime = request.param
    return found


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("mosquitto", marks=pytest.mark.skipif(MOSQUITTO is None, reason="needs the package mosquitto")),
    ]
)
def broker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on_bench(folder: Path, runtime: Runtime, scenario: Scenario, broker: str = "embedded", tls: bool = False) -> None:
    asyncio.run(asyncio.wait_for(BROKERS[broker](folder, runtime, tls, scenario), 200))


@pytest.mark.parametrize("kind", ["close", "reset"])
def test_a_link_lost_at_any_packet_boundary_loses_nothing(
    tmp_path: Path, runtime: Runtime, broker: str, kind: str
) -> None:
    async def scenario(bench: Bench) -> None:
        whole = await bench.session()
        assert whole["ends"] == ["TransportError: closed"]
        counts = {side: bench.proxy.passed(side) for side in ("up", "down")}
        assert counts == {"up": 9, "down": 8}  # CONNECT SUBSCRIBE 3 PUBLISH 3 PUBACK DISCONNECT; CONNACK SUBACK 3 + 3
        for side, count in counts.items():
            for n in range(count + 1):
                before = len(bench.proxy.struck)
                found = await bench.session(f"{kind}@{side}:packet:{n}")
                struck = bench.proxy.struck[before:]
                # Acknowledgements may be faster or slower than the end of the session; all other places are reached.
                assert struck == [f"{kind}@{side}:packet:{n}"] or n == count, (side, n)
                assert len(found["ends"]) > 1 or n >= 5, (side, n, found)

    on_bench(tmp_path, runtime, scenario, broker)


def test_a_link_lost_within_any_packet_loses_nothing(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(bench: Bench) -> None:
        for side in ("up", "down"):
            for n in range(1, 60, 3):
                await bench.session(f"close@{side}:byte:{n}")

    on_bench(tmp_path, runtime, scenario)


def test_a_tls_link_lost_at_any_record_loses_nothing(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.session()
        counts = {side: bench.proxy.passed(side, "record") for side in ("up", "down")}
        for side, count in counts.items():
            for n in range(count):
                await bench.session(f"{'close' if n % 2 else 'reset'}@{side}:record:{n}")

    on_bench(tmp_path, runtime, scenario, tls=True)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_slow_link_is_no_broken_link(tmp_path: Path, runtime: Runtime, tls: bool) -> None:
    async def scenario(bench: Bench) -> None:
        for faults in (["segment=1"], ["delay=0.05"], ["rate=20000", "segment=100"]):
            assert (await bench.session(*faults))["ends"] == ["TransportError: closed"]

    on_bench(tmp_path, runtime, scenario, tls=tls)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_half_open_link_is_found_by_keep_alive(tmp_path: Path, runtime: Runtime, tls: bool) -> None:
    async def scenario(bench: Bench) -> None:
        unit = "record" if tls else "packet"
        await bench.session()
        middle = {side: bench.proxy.passed(side, unit) - 4 for side in ("up", "down")}
        for side, number in middle.items():
            found = await bench.session(f"silence@{side}:{unit}:{number}")
            assert "no PINGRESP" in found["ends"][0], found
        found = await bench.session("silence@up:byte:0")  # before CONNECT: the connect limit
        assert "TimeoutError" in found["ends"][0], found

    on_bench(tmp_path, runtime, scenario, tls=tls)


def test_garbage_ends_the_link_and_nothing_else(tmp_path: Path, runtime: Runtime) -> None:
    async def scenario(bench: Bench) -> None:
        for n in range(8):
            for side in ("up", "down"):
                await bench.session(f"garbage@{side}:packet:{n}")

    on_bench(tmp_path, runtime, scenario)


# --- the proxy itself


def test_framers_find_the_same_ends_in_pieces_of_any_size() -> None:
    packets = [b"\xc0\x00", b"\x30\x83\x01" + bytes(131), b"\x40\x02\x00\x01", b"\xd0\x00"]
    records = [b"\x16\x03\x01\x00\x05hello", b"\x17\x03\x03\x01\x00" + bytes(256), b"\x15\x03\x03\x00\x00"]
    for unit, parts in (("packet", packets), ("record", records)):
        data, ends = b"".join(parts), []
        for part in parts:
            ends.append((ends or [0])[-1] + len(part))
        for step in (1, 2, 3, 7, 1000):
            framer, found = Framer(unit), []
            for at in range(0, len(data), step):
                found += [at + end for end in framer.ends(data[at : at + step])]
            assert found == ends
            assert framer.count == len(parts)


def test_faults_are_read_from_text() -> None:
    assert parse("delay=0.25") == Fault("delay", 0.25)
    assert parse("reset@up:packet:3") == Fault("reset", 3, "up", "packet")
    for text in ("close@up:byte:0", "segment=1", "silence@down:record:12"):
        assert str(parse(text)) == text


@pytest.mark.parametrize(
    "fault",
    ["", "delay", "delay=-1", "rate=0", "segment=1.5", "close@left:byte:1", "burn@up:byte:1", "close@up:byte:-1"],
)
def test_a_wrong_fault_is_named_by_the_command(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--listen", "127.0.0.1:1", "--to", "localhost:2", f"--fault={fault}"])
    assert stop.value.code == 2
    assert repr(fault) in capsys.readouterr().err


def test_a_taken_port_is_told_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["--listen", f"127.0.0.1:{port}", "--to", "localhost:2"]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_packets_cannot_be_counted_in_tls(tmp_path: Path) -> None:
    async def scenario() -> None:
        lines: list[str] = []
        async with world(tmp_path) as here:
            proxy = LinkFaults("127.0.0.1", here.port, [parse("close@up:packet:3")], report=lines.append)
            port = await proxy.start()
            with pytest.raises(OSError):
                await asyncio.open_connection("localhost", port, ssl=yard().credentials("dev").context)
            await proxy.stop()
        assert any("TLS or not?" in line for line in lines), lines

    asyncio.run(scenario())


def test_a_broker_that_is_away_is_reported() -> None:
    async def scenario() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            lines: list[str] = []
            proxy = LinkFaults("127.0.0.1", closed.getsockname()[1], report=lines.append)
            reader, writer = await asyncio.open_connection("127.0.0.1", await proxy.start())
            assert await reader.read() == b""
            writer.close()
            await proxy.stop()
            assert f"127.0.0.1:{closed.getsockname()[1]}: " in lines[0], lines

    asyncio.run(scenario())
