# SPDX-License-Identifier: Apache-2.0
"""Who may say and hear what, over TLS: subscriptions, requests to the service, retained messages, slow readers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgefleet.broker import Limits
from edgefleet.messages import Disconnect, Message
from tests.fleet.broker_support import (
    EVENTS,
    Grant,
    packet,
    publish_packet,
    run,
    world,
    yard,
)


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


def test_what_follows_a_revocation_in_the_same_bytes_does_not_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as here:
            here.answer = lambda request: [Disconnect("FORBIDDEN_ACCESS", client_id="one")]
            watcher = await here.watcher("one/#")
            device = await here.device("one")
            device.writer.write(
                publish_packet("$aws/things/one/shadow/get", b"")
                + publish_packet("one/x", b"too late")
                + publish_packet("$aws/things/one/shadow/get", b"too late")
            )
            await device.closed()
            await watcher.publish("one/marker")
            assert (await watcher.next()).topic == "one/marker"
            assert len(here.requests) == 1

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
        limits = Limits(write_buffer=32768, queue_messages=20, close_s=0.05)
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
