# SPDX-License-Identifier: Apache-2.0
"""The broker over TLS: who gets in, who may say and hear what, and what a connection's end looks like."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from edgefleet.broker import Limits
from edgefleet.messages import Disconnect, Message
from tests.fleet.broker_support import (
    EVENTS,
    Grant,
    connect_packet,
    new_yard,
    packet,
    run,
    subscribe_packet,
    world,
    yard,
)

QUICK = Limits(keep_alive_min=0.1, keep_alive_max=0.1, connect_s=0.2)


# Getting in.


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


# Saying and hearing.


def test_publishing_on_anothers_topic_closes_and_delivers_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            victim = await here.device("two")
            await victim.subscribe("two/#", "$aws/things/two/#")
            events = await here.watcher(f"{EVENTS}presence/disconnected/one")
            for topic in ("two/x", "$aws/things/two/jobs/get", "$aws/things/two/shadow/update"):
                intruder = await here.device("one")
                with pytest.raises(ConnectionError):
                    await intruder.publish(topic, b"evil")
                assert await here.disconnected_reason(events, "one") == "CLIENT_ERROR"
            await victim.publish("two/marker")
            assert (await victim.next()).topic == "two/marker"
            assert here.requests == []

    run(scenario())


def test_subscribing_to_anothers_topics_closes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            events = await here.watcher(f"{EVENTS}presence/disconnected/one")
            for name in ("two/#", "#", "$aws/things/+/jobs/#"):
                intruder = await here.device("one")
                with pytest.raises(ConnectionError):
                    await intruder.subscribe("one/x", name)
                assert await here.disconnected_reason(events, "one") == "AUTH_ERROR"

    run(scenario())


def test_message_without_iot_receive_is_silently_not_delivered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one")
            person = here.register.enroll("one", yard().credentials("one").certificate_id)
            person.grants.append(Grant("iot:Subscribe", "topicfilter/#"))
            await device.subscribe("#")
            fleet = await here.device("fleet")
            await fleet.publish("secret")
            await fleet.publish("one/marker")
            assert (await device.next()).topic == "one/marker"

    run(scenario())


@pytest.mark.parametrize("topic", ["a/+", "$SYS/x", "$aws/things/x/jobs/notify", "a/b/c/d/e/f/g/h/i", "x" * 257])
def test_illegal_or_reserved_topics_close(tmp_path: Path, topic: str) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = await here.device("fleet")
            with pytest.raises(ConnectionError):
                await peer.publish(topic)

    run(scenario())


def test_payload_of_128_kb_passes_and_one_byte_more_closes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = await here.watcher("a")
            await peer.publish("a", b"x" * 131072)
            assert len((await peer.next()).payload) == 131072
            with pytest.raises(ConnectionError):
                await peer.publish("a", b"x" * 131073)

    run(scenario())


def test_overlapping_subscriptions_deliver_once_with_the_highest_qos(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = await here.device("fleet")
            await peer.subscribe("a/#", qos=0)
            await peer.subscribe("a/b", qos=1)
            await peer.publish("a/b", b"1")
            await peer.publish("a/c", b"2")
            assert [(m.payload, m.qos) for m in (await peer.next(), await peer.next())] == [(b"1", 1), (b"2", 0)]

    run(scenario())


def test_number_sign_does_not_deliver_its_parent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = await here.watcher("a/#")
            await peer.publish("a")
            await peer.publish("a/b")
            assert (await peer.next()).topic == "a/b"

    run(scenario())


def test_nine_filters_in_a_subscribe_all_fail(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = await here.device("fleet")
            assert await peer.subscribe(*"abcdefghi") == [0x80] * 9
            assert await peer.subscribe(*"abcdefgh") == [1] * 8
            assert here.broker.connections()[0].subscriptions == dict.fromkeys("abcdefgh", 1)

    run(scenario())


def test_at_most_fifty_subscriptions(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = await here.device("fleet")
            for n in range(0, 48, 8):
                await peer.subscribe(*(str(m) for m in range(n, n + 8)))
            assert await peer.subscribe("a", "0", "b", "c") == [1, 1, 1, 0x80]
            await peer.unsubscribe("a")
            assert await peer.subscribe("c") == [1]

    run(scenario())


def test_unsubscribed_filter_delivers_nothing_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = await here.watcher("a", "b")
            await peer.unsubscribe("a", "never")
            await peer.publish("a")
            await peer.publish("b")
            assert (await peer.next()).topic == "b"

    run(scenario())


# Requests to the service.


def test_answer_reaches_only_the_requester_which_did_not_subscribe(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            here.answer = lambda request: [
                Message(request.topic + "/accepted", b"{}", 1, True),
                Message("$aws/things/one/jobs/notify", b"later"),
            ]
            other = await here.device("one", "one-b")
            await other.subscribe("$aws/things/one/jobs/#")
            device = await here.device("one")
            await device.publish("$aws/things/one/jobs/get", b"ask")
            assert await device.next() == ("$aws/things/one/jobs/get/accepted", b"{}", 1, False, 1)
            assert device.log == ["CONNACK", "PUBLISH $aws/things/one/jobs/get/accepted", "PUBACK"]
            assert (await other.next()).topic == "$aws/things/one/jobs/notify"
            [request] = here.requests
            assert (request.client_id, request.payload, request.qos) == ("one", b"ask", 1)
            assert request.certificate_id == yard().credentials("one").certificate_id

    run(scenario())


def test_answer_to_a_requester_that_is_gone_is_dropped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one")
            ref = here.broker.connections()[0].ref
            await device.disconnect()
            again = await here.device("one")
            here.broker.deliver([Message("one/late", b"", 1, True)], ref)
            here.broker.deliver([Message("one/orphan", b"", 1, True)], None)
            here.broker.deliver([Message("one/now", b"", 1, True)], here.broker.connections()[0].ref)
            assert (await again.next()).topic == "one/now"

    run(scenario())


def test_basic_ingest_goes_to_the_service_and_never_to_subscribers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher("#")
            device = await here.device("one")
            await device.publish("$aws/rules/edgeagent_upload/one/b/0/1", b"part", qos=0)
            await device.publish("$aws/rules/edgeagent_upload/one/b/0/1", b"part")
            await device.publish("one/marker")
            assert (await watcher.next()).topic == "one/marker"
            assert [request.qos for request in here.requests] == [0, 1]

    run(scenario())


def test_failing_request_closes_that_connection_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:

            def fail(request: object) -> list:
                raise RuntimeError("a bug")

            here.answer = fail
            watcher = await here.watcher(f"{EVENTS}presence/disconnected/one")
            device = await here.device("one")
            with pytest.raises(ConnectionError):
                await device.publish("$aws/things/one/jobs/get")
            assert "PUBACK" not in device.log
            assert await here.disconnected_reason(watcher, "one") == "SERVER_ERROR"
            await watcher.ping()

    run(scenario())
    assert "a bug" in caplog.text


def test_revocation_closes_every_connection_of_the_certificate_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            watcher = await here.watcher(f"{EVENTS}presence/disconnected/+")
            revoked = [await here.device("one"), await here.device("one", "one-b")]
            kept = await here.device("two")
            certificate_id = yard().credentials("one").certificate_id
            here.broker.deliver([Disconnect("FORBIDDEN_ACCESS", certificate_id=certificate_id)])
            for peer in revoked:
                peer.writer.write(packet(0x30, b"\0\5one/x"))  # already on its way: it must not count
                await peer.closed()
            for _ in revoked:
                assert (await watcher.next()).document()["disconnectReason"] == "FORBIDDEN_ACCESS"
            await kept.ping()

    run(scenario())


def test_disconnect_by_client_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            first, second = await here.device("one"), await here.device("one", "one-b")
            here.broker.deliver([Disconnect("API_INITIATED_DISCONNECT", client_id="one-b")])
            await second.closed()
            await first.ping()
            [row] = here.rows("SELECT * FROM connectivity WHERE client_id = 'one-b'")
            assert (row["connected"], row["disconnect_reason"]) == (0, "API_INITIATED_DISCONNECT")

    run(scenario())


def test_request_that_revokes_its_own_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            here.answer = lambda request: [
                Message(request.topic + "/accepted", b"bye", 1, True),
                Disconnect("FORBIDDEN_ACCESS", client_id="one"),
            ]
            device = await here.device("one")
            with pytest.raises(ConnectionError):
                await device.publish("$aws/things/one/shadow/delete")
            assert (await device.next()).payload == b"bye"

    run(scenario())


# Ends, wills and presence.


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
            assert (event["disconnectReason"], event["clientInitiatedDisconnect"]) == ("CONNECTION_LOST", False)
            assert (await watcher.next()).payload == b"unlucky"

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
            here.store.before_commit.append(lambda tx: touched.append(set(tx.touched)))
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


# Retained messages.


def test_retained_message_reaches_exact_filters_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            fleet = await here.device("fleet")
            await fleet.publish("a/b", b"old", retain=True)
            await fleet.publish("a/b", b"kept", retain=True)
            peer = await here.watcher("a/+", "a/#")
            await peer.publish("a/marker")
            assert (await peer.next()).topic == "a/marker"
            await peer.subscribe("a/b")
            message = await peer.next()
            assert (message.topic, message.payload, message.retain) == ("a/b", b"kept", True)
            await peer.subscribe("a/b")  # every subscribe sends it again
            assert (await peer.next()).payload == b"kept"

    run(scenario())


def test_retained_flag_is_clear_for_those_already_subscribed_and_empty_payload_deletes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = await here.watcher("a")
            for payload in (b"1", b""):
                await peer.publish("a", payload, retain=True)
                message = await peer.next()
                assert (message.payload, message.retain) == (payload, False)
            assert here.rows("SELECT * FROM retained") == []

    run(scenario())


def test_retaining_needs_its_own_permission(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            device = await here.device("one")
            with pytest.raises(ConnectionError):
                await device.publish("one/x", b"1", retain=True)
            here.register.enroll("one", "?")
            here.register.known[yard().credentials("one").certificate_id].grants.append(
                Grant("iot:RetainPublish", "topic/one/*")
            )
            device = await here.device("one")
            await device.publish("one/x", b"1", retain=True)
            assert [row["topic"] for row in here.rows("SELECT topic FROM retained")] == ["one/x"]

    run(scenario())


def test_reserved_topics_cannot_be_retained(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            peer = await here.device("fleet")
            with pytest.raises(ConnectionError):
                await peer.publish("$aws/things/x/shadow/update", b"{}", retain=True)
            assert here.requests == []

    run(scenario())


# The wire.


def test_nagle_is_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            await here.device("one")
            [link] = here.broker._links
            accepted = link._transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    run(scenario())


def test_slow_consumer_loses_qos_0_then_the_connection_and_memory_stays_bounded(tmp_path: Path) -> None:
    async def scenario() -> None:
        limits = Limits(write_buffer=32768, queue_messages=20)
        async with world(tmp_path, limits) as here:
            watcher = await here.watcher(f"{EVENTS}presence/disconnected/slow")
            slow = await here.device("fleet", "slow")
            await slow.subscribe("big/0", qos=0)
            await slow.subscribe("big/1", qos=1)
            slow.writer.transport.pause_reading()
            sender = await here.device("fleet", "sender")
            [link] = [link for link in here.broker._links if link._handler.ref.client_id == "slow"]
            while not link.congested:
                await sender.publish("big/0", b"x" * 100_000)
            await sender.publish("big/0", b"x" * 100_000)
            assert link._out == []
            for _ in range(21):
                await sender.publish("big/1", b"x" * 100)
            assert await here.disconnected_reason(watcher, "slow") == "THROTTLED"

    run(scenario())
