# SPDX-License-Identifier: Apache-2.0
"""How connections end: take-over, silence, wills, lifecycle events and the table of presence."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgefleet.broker import Limits
from tests.fleet.broker_support import (
    EVENTS,
    publish_packet,
    run,
    world,
    yard,
)

QUICK = Limits(keep_alive_min=0.1, keep_alive_max=0.1, connect_s=0.2)


def test_newer_connection_takes_the_client_id_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher("one/#", f"{EVENTS}presence/#")
            older = await here.device("one", will=("one/will", b"gone", 1, False))
            newer = await here.device("one")
            await older.closed()
            await newer.ping()
            topics = [m.topic for m in [await watcher.next() for _ in range(4)]]
            assert topics == [
                f"{EVENTS}presence/connected/one",
                f"{EVENTS}presence/disconnected/one",
                "one/will",
                f"{EVENTS}presence/connected/one",
            ]
            [row] = here.rows("SELECT connected, version FROM connectivity WHERE client_id = 'one'")
            assert row == {"connected": 1, "version": 1}

    run(scenario())


def test_silence_beyond_the_keep_alive_ends_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, QUICK) as here:
            watcher = await here.watcher("one/will", f"{EVENTS}presence/disconnected/one")

            async def keep_watching() -> None:
                while True:
                    await watcher.ping()
                    await asyncio.sleep(0.05)

            pinger = asyncio.create_task(keep_watching())
            silent = await here.device("one", will=("one/will", b"", 1, False))
            await silent.closed()
            assert await here.disconnected_reason(watcher, "one") == "MQTT_KEEP_ALIVE_TIMEOUT"
            assert (await watcher.next()).topic == "one/will"
            pinger.cancel()

    run(scenario())


@pytest.mark.parametrize(("asked", "effective"), [(0, 1200), (1, 30), (29, 30), (60, 60), (1201, 1200)])
def test_keep_alive_is_held_within_the_bounds(tmp_path: Path, asked: int, effective: int) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            await here.device("one", keep_alive=asked)
            assert here.broker.connections()[0].keep_alive == effective

    run(scenario())


def test_will_is_published_when_the_socket_dies_but_not_after_a_disconnect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher("one/#", f"{EVENTS}presence/disconnected/one")
            polite = await here.device("one", will=("one/will", b"polite", 1, False))
            await polite.disconnect()
            event = (await watcher.next()).document()
            assert (event["disconnectReason"], event["clientInitiatedDisconnect"]) == (
                "CLIENT_INITIATED_DISCONNECT",
                True,
            )
            unlucky = await here.device("one", will=("one/will", b"unlucky", 1, False))
            await unlucky.lose()
            event = (await watcher.next()).document()
            assert event["disconnectReason"] == "CONNECTION_LOST"
            assert event["clientInitiatedDisconnect"] is False
            assert (await watcher.next()).payload == b"unlucky"

    run(scenario())


def test_nothing_counts_after_a_disconnect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher("one/#")
            device = await here.device("one")
            device.writer.write(b"\xe0\x00" + publish_packet("one/x", b"too late") + b"\xff\xff")
            await device.closed()
            await watcher.publish("one/marker")
            assert (await watcher.next()).topic == "one/marker"
            [row] = here.rows("SELECT disconnect_reason FROM connectivity WHERE client_id = 'one'")
            assert row["disconnect_reason"] == "CLIENT_INITIATED_DISCONNECT"

    run(scenario())


def test_lifecycle_events_have_aws_shape(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher(f"{EVENTS}#")
            device = await here.device("one", "one-b")  # associated with thing "one" under another client id
            await device.subscribe("one/a", "one/b")
            await device.unsubscribe("one/a")
            await device.lose()
            found = [await watcher.next() for _ in range(5)]
            assert found[0].topic == f"{EVENTS}subscriptions/subscribed/watcher"
            documents = [message.document() for message in found[1:]]
            assert [m.topic.removeprefix(EVENTS) for m in found[1:]] == [
                "presence/connected/one-b",
                "subscriptions/subscribed/one-b",
                "subscriptions/unsubscribed/one-b",
                "presence/disconnected/one-b",
            ]
            common = {
                "clientId": "one-b",
                "sessionIdentifier": documents[0]["sessionIdentifier"],
                "principalIdentifier": yard().credentials("one").certificate_id,
            }
            for document in documents:
                assert document.pop("timestamp") > 1_600_000_000_000
            presence = common | {"thingName": "one", "ipAddress": "127.0.0.1", "versionNumber": 0}
            assert documents == [
                presence | {"eventType": "connected"},
                common | {"eventType": "subscribed", "topics": ["one/a", "one/b"]},
                common | {"eventType": "unsubscribed", "topics": ["one/a"]},
                presence
                | {
                    "eventType": "disconnected",
                    "clientInitiatedDisconnect": False,
                    "disconnectReason": "CONNECTION_LOST",
                },
            ]

    run(scenario())


def test_client_ids_with_wildcards_have_no_events(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher(f"{EVENTS}presence/connected/#")
            await here.device("one", "one#2")
            await here.device("one")
            assert (await watcher.next()).topic == f"{EVENTS}presence/connected/one"

    run(scenario())


def test_presence_row_follows_the_connection_and_touches_the_thing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            touched: list[set[str]] = []
            here.store.before_commit.append(lambda tx: touched.append(set(tx.touched)) if tx.touched else None)
            device = await here.device("one", clean=False, keep_alive=90)
            assert touched == [{"one"}]
            [row] = here.rows("SELECT * FROM connectivity")
            assert (row["thing_name"], row["connected"], row["keep_alive"], row["clean_session"]) == ("one", 1, 90, 0)
            assert (row["source_ip"], row["version"], row["disconnect_reason"]) == ("127.0.0.1", 0, None)
            await device.disconnect()
            assert touched[1:] == [{"one"}]
            [row] = here.rows("SELECT * FROM connectivity")
            assert (row["connected"], row["disconnect_reason"]) == (0, "CLIENT_INITIATED_DISCONNECT")

    run(scenario())


def test_version_starts_again_after_an_hour_offline(tmp_path: Path) -> None:
    async def scenario() -> None:
        now = [1_700_000_000.0]
        async with world(tmp_path, clock=lambda: now[0]) as here:
            versions = []
            for pause in (0, 10, 3599, 3600):
                now[0] += pause
                device = await here.device("one")
                versions += [row["version"] for row in here.rows("SELECT version FROM connectivity")]
                await device.disconnect()
            assert versions == [0, 1, 2, 0]

    run(scenario())


def test_what_hooks_of_the_store_want_sent_is_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher("joined/+")

            def join_group(tx) -> None:
                for name in tx.touched:
                    tx.publish(f"joined/{name}", {})
                    tx.policies_changed = True

            here.store.before_commit.append(join_group)
            await here.device("one")
            assert (await watcher.next()).topic == "joined/one"
            assert here.register.forgotten == 1

    run(scenario())


def test_stop_says_so_and_publishes_wills(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one")
            idle = await here.dial(yard().credentials("one"))  # never says CONNECT
            await here.broker.stop()
            await device.closed()
            await idle.closed()
            [row] = here.rows("SELECT * FROM connectivity")
            assert row["disconnect_reason"] == "SERVER_INITIATED_DISCONNECT"
            assert here.broker.connections() == []

    run(scenario())


def test_connections_tells_who_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one")
            await device.subscribe("one/a")
            [info] = here.broker.connections()
            assert (info.ref.client_id, info.ref.thing_name, info.ref.source_ip) == ("one", "one", "127.0.0.1")
            assert (info.clean_session, info.subscriptions, info.inflight) == (True, {"one/a": 1}, 0)
            await device.disconnect()
            assert here.broker.connections() == []

    run(scenario())
