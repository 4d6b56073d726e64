# SPDX-License-Identifier: Apache-2.0
"""Persistent sessions: what is acknowledged is on disk, and comes again in order after any end of either side."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from edgefleet.broker import Limits
from edgefleet.messages import Message
from edgefleet.store import Store
from tests.fleet.broker_support import EVENTS, Peer, Yard, run, world, yard
from tests.support import ROOT

STORED = "SELECT q.client_id, m.payload FROM broker_queue q JOIN broker_message m ON m.id = q.message_id ORDER BY m.id"


def test_messages_wait_for_an_offline_session_and_come_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            fleet = await here.device("fleet")
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            await device.subscribe("one/low", qos=0)
            await device.disconnect()
            await fleet.publish("one/low", b"QoS 0 is not stored", qos=0)
            for n in range(150):  # more than the window of 100
                await fleet.publish("one/a", b"%d" % n)
            device = await here.dial(yard().credentials("one"))
            assert await device.connect("one", clean=False) == (True, 0)
            assert await device.take(150) == [b"%d" % n for n in range(150)]
            await device.ping()
            assert here.rows(STORED) == []

    run(scenario())


def test_publisher_is_acknowledged_after_the_commit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one", clean=False)
            device.acknowledge = False
            await device.subscribe("one/#")
            fleet = await here.device("fleet")
            await fleet.publish("one/a", b"1")
            assert here.rows(STORED) == [{"client_id": "one", "payload": b"1"}]
            device.puback((await device.next()).packet_id)
            await device.ping()
            assert here.rows(STORED) == []
            assert here.rows("SELECT * FROM broker_message") == []

    run(scenario())


def test_failed_commit_acknowledges_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            fleet = await here.device("fleet")

            def full(tx: object) -> None:
                here.store.before_commit.clear()
                raise OSError("disk full")

            here.store.before_commit.append(full)
            with pytest.raises(ConnectionError):
                await fleet.publish("one/a", b"1")
            assert "PUBACK" not in fleet.log
            assert here.rows(STORED) == []
            fleet = await here.device("fleet")
            await fleet.publish("one/a", b"2")
            await device.ping()

    run(scenario())
    assert "disk full" in caplog.text


def test_unacknowledged_messages_are_sent_again_to_the_next_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            device.acknowledge = False
            fleet = await here.device("fleet")
            for n in range(3):
                await fleet.publish("one/a", b"%d" % n)
            second = [await device.next() for _ in range(3)][1]
            device.puback(second.packet_id)
            await device.ping()
            await device.lose()
            device = await here.device("one", clean=False)
            assert await device.take(2) == [b"0", b"2"]

    run(scenario())


def test_messages_beyond_the_window_follow_as_it_opens(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Limits(inflight=2, replay_page=3)) as here:
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            device.acknowledge = False
            fleet = await here.device("fleet")
            for n in range(8):
                await fleet.publish("one/a", b"%d" % n)
            for n in range(8):
                message = await device.next()
                assert message.payload == b"%d" % n
                assert here.broker.connections()[0].inflight <= 2
                device.puback(message.packet_id)

    run(scenario())


def test_session_survives_a_new_broker_on_the_same_store(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            await device.disconnect()
            fleet = await here.device("fleet")
            await fleet.publish("one/a", b"before")
            await fleet.publish("one/kept", b"retained", retain=True)
        async with world(tmp_path) as here:
            fleet = await here.device("fleet")
            await fleet.publish("one/a", b"after")
            credentials = yard().credentials("one")
            here.register.enroll("one", credentials.certificate_id)
            device = await here.dial(credentials)
            assert await device.connect("one", clean=False) == (True, 0)
            assert await device.take(3) == [b"before", b"retained", b"after"]
            await fleet.subscribe("one/kept")
            assert (await fleet.next()).payload == b"retained"

    run(scenario())


def test_session_identifier_is_kept_on_resume(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher(f"{EVENTS}presence/connected/one")
            seen = []
            for clean in (False, False, True, False):
                device = await here.device("one", clean=clean)
                seen.append((await watcher.next()).document()["sessionIdentifier"])
                await device.disconnect()
            assert seen[0] == seen[1]
            assert len({seen[1], seen[2], seen[3]}) == 3

    run(scenario())


def test_clean_session_discards_the_stored_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            await device.disconnect()
            fleet = await here.device("fleet")
            await fleet.publish("one/a", b"1")
            await (await here.device("one", clean=True)).disconnect()
            credentials = yard().credentials("one")
            device = await here.dial(credentials)
            assert await device.connect("one", clean=False) == (False, 0)
            for table in ("broker_subscription", "broker_queue"):
                assert here.rows(f"SELECT * FROM {table}") == []

    run(scenario())


def test_session_expires_after_an_hour_offline(tmp_path: Path) -> None:
    async def scenario() -> None:
        now = [1_700_000_000.0]
        async with world(tmp_path, Limits(sweep_s=0.02), clock=lambda: now[0]) as here:
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            await device.disconnect()
            fleet = await here.device("fleet")
            await fleet.publish("one/a", b"1")
            now[0] += 3601
            device = await here.dial(yard().credentials("one"))
            assert await device.connect("one", clean=False) == (False, 0)
            assert here.rows("SELECT * FROM broker_subscription") == []
            while here.rows("SELECT * FROM broker_message"):
                await device.ping()

    run(scenario())


def test_expired_messages_are_not_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        now = [1_700_000_000.0]
        async with world(tmp_path, clock=lambda: now[0]) as here:
            fleet = await here.device("fleet")
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            device.acknowledge = False
            await fleet.publish("one/a", b"old")
            now[0] += 3500
            await device.disconnect()
            await fleet.publish("one/a", b"young")
            now[0] += 200
            device = await here.device("one", clean=False)
            assert (await device.next()).payload == b"young"

    run(scenario())


def test_stored_messages_are_bounded_per_session(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Limits(stored_messages=3)) as here:
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            await device.disconnect()
            fleet = await here.device("fleet")
            for n in range(5):
                await fleet.publish("one/a", b"%d" % n)
            assert len(here.rows(STORED)) == 3
            device = await here.device("one", clean=False)
            assert await device.take(3) == [b"0", b"1", b"2"]
            await device.ping()
            await fleet.publish("one/a", b"again")
            assert (await device.next()).payload == b"again"

    run(scenario())


def test_message_is_stored_once_for_many_sessions(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            for name in ("one", "two"):
                device = await here.device(name, clean=False)
                await device.subscribe("shared/#")
                await device.disconnect()
            fleet = await here.device("fleet")
            await fleet.publish("shared/a", b"1")
            assert len(here.rows("SELECT * FROM broker_message")) == 1
            for name in ("one", "two"):
                device = await here.device(name, clean=False)
                assert (await device.next()).payload == b"1"
                await device.ping()
            assert here.rows("SELECT * FROM broker_message") == []

    run(scenario())


def test_policy_is_asked_again_when_a_session_is_resumed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one", clean=False)
            await device.subscribe("one/#", "shared/#")
            await device.disconnect()
            fleet = await here.device("fleet")
            await fleet.publish("shared/a", b"secret")
            await fleet.publish("one/a", b"own")
            person = here.register.known[yard().credentials("one").certificate_id]
            person.grants = [grant for grant in person.grants if "shared" not in grant.resource]
            device = await here.device("one", clean=False)
            assert (await device.next()).payload == b"own"
            assert here.rows("SELECT filter FROM broker_subscription") == [{"filter": "one/#"}]
            await device.ping()
            assert here.rows(STORED) == []

    run(scenario())


def test_answer_comes_before_the_notification_of_the_same_transaction(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            here.answer = lambda request: [
                Message(request.topic + "/accepted", b"", 1, True),
                Message("$aws/things/one/jobs/notify", b""),
                Message("$aws/things/one/jobs/notify-next", b""),
            ]
            device = await here.device("one", clean=False)
            await device.subscribe("$aws/things/one/jobs/+")
            await device.publish("$aws/things/one/jobs/j/update")
            assert device.log[2:] == [
                "PUBLISH $aws/things/one/jobs/j/update/accepted",
                "PUBLISH $aws/things/one/jobs/notify",
                "PUBLISH $aws/things/one/jobs/notify-next",
                "PUBACK",
            ]

    run(scenario())


def test_messages_delivered_while_the_broker_is_stopped_are_stored(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one", clean=False)
            await device.subscribe("one/#")
            await here.broker.stop()
            here.broker.deliver([Message("one/a", b"1")])
            assert here.rows(STORED) == [{"client_id": "one", "payload": b"1"}]

    run(scenario())


class Process:
    """A broker process on `store`, and clients of its CA."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._yard = Yard(folder)
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.fleet.broker_support", str(self._folder / "fleet.db"), str(self._folder)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._port = int(await self._process.stdout.readline())

    async def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def client(self, name: str, **options: object) -> tuple[Peer, bool]:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self._port, ssl=self._yard.credentials(name).context))
        present, code = await peer.connect(name, **options)
        assert code == 0
        return peer, present


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        process = Process(tmp_path)
        await process.start()
        try:
            device, _ = await process.client("device", clean=False, will=("will/device", b"gone", 1, False))
            assert await device.subscribe("jobs/#", f"{EVENTS}presence/disconnected/sender", "will/#") == [1, 1, 1]
            device.acknowledge = False
            sender, _ = await process.client("sender", will=("will/sender", b"gone", 1, False))
            await asyncio.gather(*(sender.publish(f"jobs/{n}", b"%d" % n) for n in range(20)))
            await sender.publish("state", b"on", retain=True)
            await process.kill()
            with Store(tmp_path / "fleet.db").reading() as tx:
                assert tx.value("SELECT COUNT(*) FROM connectivity WHERE connected = 1") == 2
            await process.start()
            device, present = await process.client("device", clean=False)
            assert present
            found = [await device.next() for _ in range(23)]
            assert [m.payload for m in found[:20]] == [b"%d" % n for n in range(20)]
            [lost] = [m.document() for m in found[20:] if m.topic.startswith(EVENTS)]
            assert lost["disconnectReason"] == "SERVER_ERROR"
            assert {m.topic for m in found[20:] if not m.topic.startswith(EVENTS)} == {"will/device", "will/sender"}
            await device.subscribe("state")
            assert (await device.next()).payload == b"on"
        finally:
            await process.kill()

    run(scenario())
