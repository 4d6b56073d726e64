# SPDX-License-Identifier: Apache-2.0
"""The contract of the transports, continued: refusals, the end of a link, what is sent over it, requests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgeagent.errors import ProtocolError, Refused, TransportError
from edgeagent.limits import LIMITS
from edgeagent.mqtt.rpc import Requests
from edgefleet.messages import Message, Outgoing, Request
from tests.device.transport_contract import (
    CASES,
    NOT_AWKWARD,
    ON_EMBEDDED,
    SUBSCRIPTIONS,
    Case,
    Site,
    failure,
    forget,
    play,
)

pytest.importorskip("paho.mqtt.client")
pytest.importorskip("awscrt")


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.log._sink", lambda line: None)


# --- refusals


@ON_EMBEDDED  # Mosquitto has no limit of subscriptions
def test_a_refused_subscription_is_named_and_costs_nothing_else(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        await line.up()
        error = await failure(line.client.subscribe([f"dev/{n}/" for n in range(SUBSCRIPTIONS + 2)]))
        assert isinstance(error, Refused)
        assert (error.code, str(error)) == ("SUBACK_128", f"SUBACK_128: dev/{SUBSCRIPTIONS}/")
        peer = await site.peer()
        await peer.publish("dev/19/", b"")
        assert (await line.next())[0] == "dev/19/"

    play(case, tmp_path, scenario)


@ON_EMBEDDED  # Mosquitto grants subscriptions and filters the messages
def test_a_subscription_beyond_the_policy_costs_the_link(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        await line.up()
        assert isinstance(await failure(line.client.subscribe(["dev/a", "other/b"])), TransportError)
        assert isinstance(await line.ended(), TransportError)

    play(case, tmp_path, scenario)


def test_more_filters_than_one_packet_takes_are_all_subscribed(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer()
        line = site.line()
        await line.up()
        names = [f"dev/{n}" for n in range(11)]
        await line.client.subscribe(names)
        for name in names:
            await peer.publish(name, b"")
        assert [(await line.next())[0] for _ in names] == names

    play(case, tmp_path, scenario)


@pytest.mark.parametrize(("topic", "qos"), [("", 1), ("a/+", 1), ("a/#", 0), ("a", 2)])
def test_what_cannot_be_published_is_a_value_error(case: Case, tmp_path: Path, topic: str, qos: int) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        await line.up()
        with pytest.raises(ValueError):
            await line.client.publish(topic, b"", qos)
        await line.client.publish("dev/x", b"")

    play(case, tmp_path, scenario)


def test_calls_without_a_link_fail_at_once(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        client = site.line().client
        for call in (client.publish("dev/x", b""), client.publish("dev/x", b"", 0), client.subscribe(["dev/x"])):
            assert isinstance(await asyncio.wait_for(failure(call), 1), TransportError)

    play(case, tmp_path, scenario)


# --- the end of a link


def test_close_ends_run_and_is_said_to_the_server(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer("dev/#")
        line = site.line(will=("dev/will", "gone"))
        await line.up()
        await line.down()
        assert str(await line.ended()) == "closed"
        await line.client.close()
        await peer.publish("dev/marker", b"")
        assert (await peer.next()).topic == "dev/marker"  # no will

    play(case, tmp_path, scenario)


def test_a_lost_link_leaves_the_will_retained(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer("dev/will")
        line = site.line(will=("dev/will", "gone"))
        await line.up()
        site.cable.cut()
        assert (await peer.next()).payload == b"gone"
        late = site.line("dev-late")
        await late.up()
        await late.client.subscribe(["dev/will"])
        assert await late.next() == ("dev/will", b"gone")
        await late.client.publish("dev/will", b"", retain=True)

    play(case, tmp_path, scenario)


@NOT_AWKWARD  # says DISCONNECT whenever it stops
def test_cancelling_run_leaves_the_will(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer("dev/#")
        line = site.line(will=("dev/will", "gone"))
        await line.up()
        await line.drop()
        assert not line.client.connected
        assert (await peer.next()).payload == b"gone"
        await peer.publish("dev/will", b"", retain=True)

    play(case, tmp_path, scenario)


def test_a_lost_link_ends_run_and_fails_what_waits(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line()
        await line.up()
        calls = [
            asyncio.create_task(failure(call))
            for call in (
                line.client.request("dev/question", b"", "k", 60),
                *(line.client.publish("dev/x", b"") for _ in range(12)),
                line.client.subscribe(["dev/x"]),
            )
        ]
        site.cable.freeze()
        await asyncio.sleep(0)
        site.cable.cut()
        assert isinstance(await line.ended(), TransportError)
        for error in await asyncio.wait_for(asyncio.gather(*calls), 2):
            assert isinstance(error, TransportError)

    play(case, tmp_path, scenario)


def test_a_half_open_link_ends_within_the_keepalive(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line(keepalive=4)
        await line.up()
        waiting = asyncio.create_task(failure(line.client.request("dev/question", b"", "k", 60)))
        site.cable.freeze()
        assert isinstance(await line.ended(4 * 1.5 + 4), TransportError)
        assert isinstance(await asyncio.wait_for(waiting, 1), TransportError)

    play(case, tmp_path, scenario)


def test_an_idle_link_is_kept_alive(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        line = site.line(keepalive=2)
        await line.up()
        await asyncio.sleep(5)  # the server gives up after 3 s of silence
        assert line.client.connected
        await line.client.publish("dev/x", b"")

    play(case, tmp_path, scenario)


def test_a_client_connects_again_after_a_loss_and_its_handlers_stay(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer()
        line = site.line()
        for n in range(3):
            await line.up()
            await line.client.subscribe(["dev/in"])
            await peer.publish("dev/in", b"%d" % n)
            assert await line.next() == ("dev/in", b"%d" % n)
            site.cable.cut()
            await line.ended()

    play(case, tmp_path, scenario)


def test_a_second_connection_with_the_same_name_ends_the_first(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        first, second = site.line(), site.line()
        await first.up()
        await second.up()
        assert isinstance(await first.ended(), TransportError)
        await second.client.publish("dev/x", b"")

    play(case, tmp_path, scenario)


# --- publishes over the end of a link


def test_an_unacknowledged_publish_is_sent_again_in_the_kept_session(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer("dev/up")
        line = site.line("dev-resend", clean=False)
        await line.up()
        site.cable.freeze()
        publishing = asyncio.create_task(line.client.publish("dev/up", b"precious"))
        await asyncio.sleep(0.05)
        site.cable.thaw()
        await line.ended()
        assert not publishing.done()
        assert await line.up() is True
        await asyncio.wait_for(publishing, 5)
        assert (await peer.next()).payload == b"precious"
        await forget(site, line, "dev-resend")

    play(case, tmp_path, scenario)


def test_an_unacknowledged_publish_fails_if_the_session_was_lost(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer("dev/up")
        line = site.line("dev-lost", clean=False)
        await line.up()
        site.cable.freeze()
        publishing = asyncio.create_task(failure(line.client.publish("dev/up", b"precious")))
        await asyncio.sleep(0.05)
        site.cable.thaw()
        await line.ended()
        other = site.line("dev-lost")  # a clean session takes the kept one away
        await other.up()
        await other.down()
        assert await line.up() is False
        error = await asyncio.wait_for(publishing, 5)
        assert str(error) == "session lost"
        await line.client.publish("dev/up", b"marker")
        assert (await peer.next()).payload == b"marker"  # and it was not sent behind the caller's back
        await forget(site, line, "dev-lost")

    play(case, tmp_path, scenario)


def test_a_publish_without_answer_ends_in_time(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LIMITS, "REQUEST_S", 0.3)

    async def scenario(site: Site) -> None:
        line = site.line()
        await line.up()
        site.cable.freeze()
        errors = await asyncio.gather(*(failure(line.client.publish("dev/x", b"")) for _ in range(10)))
        assert all(isinstance(error, TransportError) for error in errors)

    play(case, tmp_path, scenario)


def test_a_cancelled_publish_gives_its_place_to_others(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer("dev/up")
        line = site.line()
        await line.up()
        stuck = [asyncio.create_task(line.client.request("dev/question", b"", f"k{n}", 60)) for n in range(8)]
        waiting = asyncio.create_task(line.client.publish("dev/up", b"late"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        stuck[0].cancel()
        await asyncio.wait_for(waiting, 5)
        assert (await peer.next()).payload == b"late"
        for task in stuck:
            task.cancel()
        publishing = asyncio.create_task(line.client.publish("dev/up", b"cancelled"))
        await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.wait([publishing])
        await line.client.publish("dev/up", b"after")
        assert (await peer.next()).payload in (b"cancelled", b"after")  # it may have been sent
        assert line.client.connected

    play(case, tmp_path, scenario)


# --- requests


def test_a_request_ends_with_the_first_answer_of_its_key(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.peer("dev/question")
        line = site.line()
        await line.up()
        asking = asyncio.create_task(line.client.request("dev/question", b"?", "k"))
        assert (await peer.next()).payload == b"?"
        line.client.done("other", 1)
        line.client.done("k", 42)
        line.client.done("k", 43)
        assert await asking == 42
        asking = asyncio.create_task(line.client.request("dev/question", b"?", "k"))
        await peer.next()
        line.client.done("k", ProtocolError("nonsense"))
        assert isinstance(await failure(asking), ProtocolError)
        assert isinstance(await failure(line.client.request("dev/question", b"?", "k", 0.1)), TransportError)

    play(case, tmp_path, scenario)


@ON_EMBEDDED  # Mosquitto has no services
def test_requests_on_reserved_topics_are_answered(case: Case, tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        def answer(request: Request) -> list[Outgoing]:
            return [Message(request.topic + "/accepted", request.payload, to_requester=True)]

        assert site.here is not None
        site.here.answer = answer
        line = site.line()
        requests = Requests(line.client)
        await line.up()
        found: dict[str, Any] = await requests.call("$aws/things/dev/shadow/get", {"a": 1})
        assert found["a"] == 1

    play(case, tmp_path, scenario)
