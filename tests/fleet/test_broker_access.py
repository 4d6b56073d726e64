# SPDX-License-Identifier: Apache-2.0
"""Who gets in, over TLS, and what a breach of the protocol costs."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from edgefleet.broker import Limits
from tests.fleet.broker_support import (
    EVENTS,
    connect_packet,
    new_yard,
    packet,
    run,
    subscribe_packet,
    world,
    yard,
)

QUICK = Limits(keep_alive_min=0.1, keep_alive_max=0.1, connect_s=0.2)


def test_certificate_of_another_ca_is_refused_by_tls(tmp_path: Path) -> None:
    async def scenario() -> None:
        stranger = new_yard().credentials("stranger", yard().ca_path)
        async with world(tmp_path) as here:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                peer = await here.dial(stranger)  # with TLS 1.3 the refusal arrives with the first read
                await peer.connect("stranger")
            assert here.register.seen == []

    run(scenario())


def test_client_without_certificate_is_refused_by_tls(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            anonymous = yard().credentials("x")._replace(context=ssl.create_default_context(cafile=yard().ca_path))
            with pytest.raises((ssl.SSLError, ConnectionError)):
                peer = await here.dial(anonymous)
                await peer.connect("x")

    run(scenario())


def test_unregistered_certificate_gets_connack_5_and_is_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher(f"{EVENTS}presence/connect_failed/+")
            credentials = yard().credentials("ghost")
            peer = await here.dial(credentials)
            assert await peer.connect("ghost") == (False, 5)
            await peer.closed()
            event = await watcher.next()
            assert event.topic == f"{EVENTS}presence/connect_failed/ghost"
            document = event.document()
            assert document.pop("timestamp") > 1_600_000_000_000
            assert document == {
                "clientId": "ghost",
                "eventType": "connect_failed",
                "connectFailureReason": "AUTHORIZATION_FAILED",
                "principalIdentifier": credentials.certificate_id,
                "ipAddress": "127.0.0.1",
            }

    run(scenario())


def test_client_id_of_another_is_denied(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            credentials = yard().credentials("one")
            here.register.enroll("one", credentials.certificate_id)
            peer = await here.dial(credentials)
            assert await peer.connect("two") == (False, 5)
            await peer.closed()

    run(scenario())


def test_authorizer_is_told_of_session_and_will(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            await here.device("one", clean=False, will=("one/gone", b"", 1, False), username="?SDK=PythonV2&Version=1")
            assert here.register.seen == [("one", "127.0.0.1", True, "one/gone")]

    run(scenario())


def test_failing_authorizer_answers_unavailable(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:

            def broken(*_: object, **__: object) -> None:
                raise RuntimeError("disk")

            here.register.connect = broken  # type: ignore[assignment,method-assign]
            peer = await here.dial(yard().credentials("one"))
            assert await peer.connect("one") == (False, 3)
            await peer.closed()

    run(scenario())


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"client_id": "fleet", "level": 5}, 1),
        ({"client_id": "fleet", "level": 3}, 1),
        ({"client_id": "", "clean": False}, 2),
        ({"client_id": "x" * 129}, 2),
        ({"client_id": "", "clean": True}, 0),
        ({"client_id": "x" * 128}, 0),
        ({"client_id": "fleet", "will": ("a/+", b"", 0, False)}, 5),
        ({"client_id": "fleet", "will": ("$aws/things/x/shadow/update", b"", 0, False)}, 5),
    ],
)
def test_connack_codes(tmp_path: Path, options: dict, code: int) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            credentials = yard().credentials("fleet")
            here.register.enroll("fleet", credentials.certificate_id)
            peer = await here.dial(credentials)
            assert await peer.connect(**options) == (False, code)
            if code:
                await peer.closed()
            else:
                await peer.ping()

    run(scenario())


def test_will_that_policy_forbids_fails_the_connect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            credentials = yard().credentials("one")
            here.register.enroll("one", credentials.certificate_id)
            for will in (("two/x", b"", 0, False), ("one/x", b"", 0, True)):  # not its topic; not its right to retain
                peer = await here.dial(credentials)
                assert await peer.connect("one", will=will) == (False, 5)

    run(scenario())


def test_silence_before_connect_is_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, QUICK) as here:
            peer = await here.dial(yard().credentials("one"))
            await peer.closed()

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"\xc0\x00",  # PINGREQ before CONNECT
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\xff\xff\xff\x7f",
        connect_packet("fleet") + connect_packet("fleet"),
        connect_packet("fleet") + b"\x70\x02\x00\x01",  # PUBCOMP
        connect_packet("fleet") + packet(0x34, b"\0\1t\0\1"),  # PUBLISH with QoS 2
        connect_packet("fleet") + subscribe_packet(1, [("t", 2)]),
        connect_packet("fleet", will=("t", b"", 2, False)),
    ],
)
def test_protocol_violations_close(tmp_path: Path, data: bytes) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            credentials = yard().credentials("fleet")
            here.register.enroll("fleet", credentials.certificate_id)
            peer = await here.dial(credentials)
            peer.writer.write(data)
            await peer.closed()
            assert "PINGRESP" not in peer.log and "SUBACK" not in peer.log

    run(scenario())
