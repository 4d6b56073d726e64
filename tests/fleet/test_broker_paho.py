# SPDX-License-Identifier: Apache-2.0
"""A client by others (Eclipse Paho) against the broker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgefleet.messages import Message
from tests.fleet.broker_support import WAIT, World, run, world, yard

paho = pytest.importorskip("paho.mqtt.client")
from paho.mqtt.enums import CallbackAPIVersion  # noqa: E402


class Paho:
    """A Paho client in its own thread; what it calls back is handed to the loop of the test."""

    def __init__(self, here: World, name: str, clean: bool = True) -> None:
        credentials = yard().credentials(name)
        here.register.enroll(name, credentials.certificate_id)
        self.seen: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(kind: str, value: Any) -> None:
            loop.call_soon_threadsafe(self.seen.put_nowait, (kind, value))

        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean)
        self.client.tls_set_context(credentials.context)
        self.client.on_connect = lambda c, u, flags, reason, p: tell("connected", (flags.session_present, str(reason)))
        self.client.on_message = lambda c, u, message: tell("message", (message.topic, message.payload))
        self.client.on_subscribe = lambda c, u, mid, codes, p: tell("subscribed", [str(code) for code in codes])
        self.client.on_publish = lambda c, u, mid, reason, p: tell("published", mid)
        self.client.on_disconnect = lambda c, u, flags, reason, p: tell("disconnected", str(reason))
        self.client.connect_async("127.0.0.1", here.port, keepalive=60)
        self.client.loop_start()

    async def next(self, kind: str) -> Any:
        found, value = await asyncio.wait_for(self.seen.get(), WAIT)
        assert found == kind, (found, value)
        return value

    async def stop(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)


def test_subscribe_and_publish(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = Paho(here, "one")
            assert await peer.next("connected") == (False, "Success")
            peer.client.subscribe([("one/+", 1), ("shared/#", 0)])
            assert await peer.next("subscribed") == ["Granted QoS 1", "Granted QoS 0"]
            fleet = await here.device("fleet")
            await fleet.publish("one/x", b"for one")
            assert await peer.next("message") == ("one/x", b"for one")
            peer.client.publish("one/y", b"y" * 100_000, qos=1)
            assert await peer.next("message") == ("one/y", b"y" * 100_000)
            await peer.next("published")
            await peer.stop()

    run(scenario())


def test_request_and_answer_without_subscription(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            here.answer = lambda request: [Message(request.topic + "/accepted", request.payload, 1, True)]
            peer = Paho(here, "one")
            await peer.next("connected")
            peer.client.publish("$aws/things/one/jobs/start-next", b"{}", qos=1)
            assert await peer.next("message") == ("$aws/things/one/jobs/start-next/accepted", b"{}")
            await peer.next("published")
            await peer.stop()

    run(scenario())


def test_persistent_session(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = Paho(here, "one", clean=False)
            await peer.next("connected")
            peer.client.subscribe("one/#", 1)
            await peer.next("subscribed")
            await peer.stop()
            fleet = await here.device("fleet")
            for n in range(5):
                await fleet.publish("one/x", b"%d" % n)
            peer = Paho(here, "one", clean=False)
            assert await peer.next("connected") == (True, "Success")
            assert [(await peer.next("message"))[1] for _ in range(5)] == [b"%d" % n for n in range(5)]
            await peer.stop()

    run(scenario())


def test_refused_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = Paho(here, "ghost")
            here.register.known.clear()
            assert await peer.next("connected") == (False, "Not authorized")
            await peer.stop()

    run(scenario())
