# SPDX-License-Identifier: Apache-2.0
"""The contract of the transports, on every transport and broker: connecting, messages. See transport_contract.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgeagent.errors import AgentError, Refused, TransportError
from edgeagent.limits import LIMITS
from edgefleet.pki import Authority
from tests.device.transport_contract import (
    CASES,
    NOT_AWKWARD,
    ON_EMBEDDED,
    Case,
    Impostor,
    Site,
    failure,
    forget,
    play,
    settled,
    stranger,
    until,
)
from tests.fleet.broker_support import yard

pytest.importorskip("paho.mqtt.client")
pytest.importorskip("awscrt")


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.log._sink", lambda line: None)


# --- connecting


def test_a_clean_session_is_never_present(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        for _ in range(2):
            assert await line.up() is False
            assert line.client.connected
            await line.down()
            assert not line.client.connected

    play(case, tmp_path, scenario)


def test_a_kept_session_is_present_and_delivers_what_came_meanwhile(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer()
        line = site.line("dev-kept", clean=False)
        await line.up()
        await line.client.subscribe(["dev/in"])
        await line.down()
        await peer.publish("dev/in", b"while away")
        assert await line.up() is True
        assert await line.next() == ("dev/in", b"while away")
        await line.down()
        forget = site.line("dev-kept")
        assert await forget.up() is False

    play(case, tmp_path, scenario)


def test_a_server_of_another_ca_is_refused(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LIMITS, "CONNECT_S", 5)  # s2n, of the AWS runtime, tells a failure after up to 30 s

    async def scenario(site: Site) -> None:
        async with Impostor(*_server(stranger()._authority, tmp_path, "localhost")) as impostor:
            error = await failure(site.line(port=impostor.port).client.connect())
            assert isinstance(error, TransportError)
            assert not impostor.greeted

    play(case, tmp_path, scenario)


def test_a_server_of_another_name_is_refused(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LIMITS, "CONNECT_S", 5)  # s2n, of the AWS runtime, tells a failure after up to 30 s

    async def scenario(site: Site) -> None:
        async with Impostor(*_server(yard()._authority, tmp_path, "fleet.example")) as impostor:
            error = await failure(site.line(port=impostor.port).client.connect())
            assert isinstance(error, TransportError)
            assert not impostor.greeted

    play(case, tmp_path, scenario)


def test_a_server_of_our_ca_and_its_own_name_is_greeted(case: Case, tmp_path: Path) -> None:
    """The counterpart of the two before: their servers are refused for nothing else."""

    async def scenario(site: Site) -> None:
        async with Impostor(*_server(yard()._authority, tmp_path, "localhost")) as impostor:
            assert isinstance(await failure(site.line(port=impostor.port).client.connect()), AgentError)
            await until(lambda: impostor.greeted, "CONNECT")

    play(case, tmp_path, scenario)


def _server(authority: Authority, folder: Path, name: str) -> tuple[Path, Path]:
    paths = folder / "impostor.pem", folder / "impostor.key"
    for path, text in zip(paths, authority.issue_server([name]), strict=True):
        path.write_text(text)
    return paths


def test_a_certificate_that_the_server_does_not_trust_is_a_transport_error(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line(credentials=stranger().credentials("dev"))
        assert isinstance(await failure(line.client.connect()), TransportError)
        assert not line.client.connected

    play(case, tmp_path, scenario)


@ON_EMBEDDED  # this Mosquitto takes everybody with a certificate
def test_a_refused_connection_has_the_connack_code(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line(credentials=yard().credentials("unknown"))
        error = await failure(line.client.connect())
        assert isinstance(error, Refused)
        assert error.code == ("CONNACK" if case.awkward else "CONNACK_5")

    play(case, tmp_path, scenario)


def test_missing_credentials_are_named(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        papers = yard().credentials("dev")._replace(cert_path=tmp_path / "lost.pem")
        error = await failure(site.line(credentials=papers).client.connect())
        assert isinstance(error, TransportError)
        assert "lost.pem" in str(error)

    play(case, tmp_path, scenario)


def test_nobody_listening_is_a_transport_error_and_the_next_connect_works(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        await site.cable.stop()
        assert isinstance(await failure(line.client.connect()), TransportError)
        assert not line.client.connected
        await site.cable.start()
        assert await line.up() is False

    play(case, tmp_path, scenario)


def test_the_connect_limit_covers_a_server_that_says_nothing(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        site.cable.freeze()
        monkeypatch.setattr(LIMITS, "CONNECT_S", 0.2)
        error = await asyncio.wait_for(failure(line.client.connect()), 3)
        assert isinstance(error, TransportError)
        monkeypatch.undo()
        site.cable.thaw()
        await line.up()  # a late end of the first attempt does not matter

    play(case, tmp_path, scenario)


def test_a_cancelled_connect_leaves_nothing_behind(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        site.cable.freeze()
        connecting = asyncio.create_task(line.client.connect())
        await until(lambda: bool(site.cable._writers), "the attempt")
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        assert not line.client.connected
        site.cable.thaw()
        await line.up()
        await line.client.publish("dev/x", b"")

    play(case, tmp_path, scenario)


# --- messages


def test_messages_of_both_qualities_go_both_ways(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer("dev/up")
        line = site.line()
        await line.up()
        await line.client.subscribe([("dev/down/0", 0), "dev/down/1"])
        for qos in (0, 1):
            await line.client.publish("dev/up", f"{qos}", qos)
            message = await peer.next()
            assert (message.topic, message.payload, message.qos) == ("dev/up", b"%d" % qos, qos)
            await peer.publish(f"dev/down/{qos}", b"%d" % qos)
            assert await line.next() == (f"dev/down/{qos}", b"%d" % qos)

    play(case, tmp_path, scenario)


def test_many_publishes_at_once_all_arrive(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer("dev/up")
        line = site.line()
        await line.up()
        await asyncio.gather(*(line.client.publish("dev/up", b"%d" % n, n % 2) for n in range(60)))
        assert sorted(map(int, await peer.take(60))) == list(range(60))

    play(case, tmp_path, scenario)


def test_many_messages_arrive_in_order(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer()
        line = site.line()
        await line.up()
        await line.client.subscribe(["dev/down"])
        for n in range(60):
            await peer.publish("dev/down", b"%d" % n)
        assert [int((await line.next())[1]) for _ in range(60)] == list(range(60))

    play(case, tmp_path, scenario)


def test_sizes_up_to_the_receive_cap_come_back(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        await line.up()
        await line.client.subscribe(["dev/echo"])
        for size in (0, 1, 127, 4096, LIMITS.MQTT_PACKET - 16):
            await line.client.publish("dev/echo", memoryview(bytes(size)))
            assert await line.next() == ("dev/echo", bytes(size))

    play(case, tmp_path, scenario)


def test_a_message_over_the_cap_is_reported_acknowledged_and_dropped(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line("dev-big", clean=False)
        seen: list[tuple[str, int]] = []
        line.client.oversized.append(lambda topic, size: seen.append((topic, size)))
        await line.up()
        await line.client.subscribe(["dev/in"])
        peer = await site.peer()
        await peer.publish("dev/in", bytes(60000))
        await peer.publish("dev/in", b"small")
        assert await line.next() == ("dev/in", b"small")
        assert seen == [("dev/in", 2 + len("dev/in") + 2 + 60000)]
        await settled(line)
        await line.down()
        await line.up()
        await peer.publish("dev/in", b"marker")
        assert await line.next() == ("dev/in", b"marker")
        assert len(seen) == 1
        await forget(site, line, "dev-big")

    play(case, tmp_path, scenario)


def test_retained_messages_are_kept_for_later_subscribers(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        await line.up()
        await line.client.publish("dev/kept", b"state", retain=True)
        await line.client.subscribe(["dev/kept"])
        assert await line.next() == ("dev/kept", b"state")
        await line.client.publish("dev/kept", b"", retain=True)

    play(case, tmp_path, scenario)


def test_a_handler_that_was_taken_off_hears_nothing_and_unsubscribing_ends_delivery(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer()
        line = site.line()
        heard: list[bytes] = []
        token = line.client.on("dev/a", lambda topic, payload: heard.append(bytes(payload)))
        await line.up()
        await line.client.subscribe(["dev/a", "dev/b"])
        await peer.publish("dev/a", b"1")
        assert await line.next() == ("dev/a", b"1")
        line.client.off(token)
        line.client.off(token)
        await peer.publish("dev/a", b"2")
        assert await line.next() == ("dev/a", b"2")
        assert heard == [b"1"]
        await line.client.unsubscribe(["dev/a"])
        await peer.publish("dev/a", b"3")
        await peer.publish("dev/b", b"4")
        assert await line.next() == ("dev/b", b"4")

    play(case, tmp_path, scenario)


@NOT_AWKWARD  # acknowledges whatever happened
def test_a_message_whose_handler_failed_comes_again_in_the_next_session(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer()
        line = site.line("dev-again", clean=False)
        await line.up()
        await line.client.subscribe(["dev/in"])
        line.failing = True
        failed = asyncio.Event()
        line.client.on("dev/in", lambda topic, payload: failed.set())
        await peer.publish("dev/in", b"precious")
        await asyncio.wait_for(failed.wait(), 5)
        await line.client.close()
        await line.ended()
        assert line.messages.empty()
        line.failing = False
        assert await line.up() is True
        assert await line.next() == ("dev/in", b"precious")
        await forget(site, line, "dev-again")

    play(case, tmp_path, scenario)


@NOT_AWKWARD  # acknowledges whatever happened
def test_a_message_is_acknowledged_after_its_handler_and_not_before(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer()
        line = site.line("dev-late", clean=False)
        begun, release = asyncio.Event(), asyncio.Event()

        async def slow(topic: str, payload: bytearray) -> None:
            begun.set()
            await release.wait()

        line.client.on("dev/in", slow)
        await line.up()
        await line.client.subscribe(["dev/in"])
        await peer.publish("dev/in", b"1")
        await asyncio.wait_for(begun.wait(), 5)
        await line.drop()  # in the middle of the handler
        release.set()
        await line.next()  # the first handler had seen it
        assert await line.up() is True
        assert await line.next() == ("dev/in", b"1")
        await peer.publish("dev/in", b"2")
        assert await line.next() == ("dev/in", b"2")
        await settled(line)
        await line.down()
        assert await line.up() is True
        await peer.publish("dev/in", b"3")
        assert await line.next() == ("dev/in", b"3")  # neither 1 nor 2 again
        await forget(site, line, "dev-late")

    play(case, tmp_path, scenario)
