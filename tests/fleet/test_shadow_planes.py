# SPDX-License-Identifier: Apache-2.0
"""Shadows over MQTT and HTTP (aws-iot-protocol.md section 9, Appendix F 14, 15)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.errors import ApiError
from edgefleet.messages import Request
from edgefleet.shadow import device_plane
from edgefleet.shadow.operations import DataOperations
from edgefleet.store import Store

T = 1_700_000_000
PREFIX = "$aws/things/t1/shadow"


class World:
    def __init__(self, path):
        self.store = Store(path / "fleet.db")
        self.touched = set()

    def ask(self, rest, body=b"", now=T, prefix=PREFIX):
        """Publish on the shadow's topic; returns [(topic below the prefix, message)] in sending order."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.store.transaction() as tx:
            assert device_plane.handle(tx, Request(f"{prefix}/{rest}", payload, "t1", "c"), now)
        self.touched = tx.touched
        assert not any(message.to_requester for message in tx.outgoing)
        return [(message.topic[len(prefix) + 1 :], json.loads(message.payload)) for message in tx.outgoing]

    def call(self, operation, **members):
        with self.store.transaction() as tx:
            answer = getattr(DataOperations(), operation)(tx, **members)
        return answer, [message.topic for message in tx.outgoing]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def reported(value, **more):
    return {"state": {"reported": value}, **more}


def test_the_first_report_is_version_one_without_delta_and_without_previous(world):
    stamp = {"reported": {"a": {"timestamp": T}}}
    assert world.ask("update", reported({"a": 1}, clientToken="x")) == [
        ("update/accepted", {"state": {"reported": {"a": 1}}, "metadata": stamp, "version": 1, "timestamp": T,
                             "clientToken": "x"}),
        ("update/documents", {"current": {"state": {"reported": {"a": 1}}, "metadata": stamp, "version": 1},
                              "timestamp": T, "clientToken": "x"}),
    ]  # fmt: skip
    assert world.touched == {"t1"}


def test_a_different_desired_value_gives_accepted_delta_documents_in_this_order(world):
    world.ask("update", reported({"a": 1}))
    sent = world.ask("update", {"state": {"desired": {"a": 2}}}, T + 5)
    assert [topic for topic, _ in sent] == ["update/accepted", "update/delta", "update/documents"]
    assert sent[1][1] == {
        "state": {"a": 2}, "metadata": {"a": {"timestamp": T + 5}}, "version": 2, "timestamp": T + 5,
    }  # fmt: skip
    assert sent[2][1]["previous"]["state"] == {"reported": {"a": 1}}
    assert sent[2][1]["current"]["version"] == 2


def test_any_accepted_update_that_leaves_a_delta_publishes_it(world):
    world.ask("update", {"state": {"desired": {"a": 2}}})
    assert "update/delta" in dict(world.ask("update", reported({"b": 1})))
    assert "update/delta" not in dict(world.ask("update", reported({"a": 2})))


def test_get_shows_the_whole_document_with_its_delta(world):
    world.ask("update", {"state": {"desired": {"a": {"b": 2, "c": 1}}, "reported": {"a": {"b": 1, "c": 1}}}})
    ((topic, answer),) = world.ask("get", {"clientToken": "x"}, T + 9)
    stamp = {"timestamp": T}
    assert topic == "get/accepted"
    assert answer == {
        "state": {
            "desired": {"a": {"b": 2, "c": 1}},
            "reported": {"a": {"b": 1, "c": 1}},
            "delta": {"a": {"b": 2}},
        },
        "metadata": {
            "desired": {"a": {"b": stamp, "c": stamp}},
            "reported": {"a": {"b": stamp, "c": stamp}},
            "delta": {"a": {"b": stamp}},
        },
        "version": 1,
        "timestamp": T + 9,
        "clientToken": "x",
    }


def test_only_touched_leaves_get_a_new_time(world):
    world.ask("update", reported({"a": 1, "b": 1}))
    world.ask("update", reported({"b": 1}), T + 5)
    metadata = world.ask("get")[0][1]["metadata"]
    assert metadata == {"reported": {"a": {"timestamp": T}, "b": {"timestamp": T + 5}}}


def test_an_empty_update_bumps_the_version(world):
    world.ask("update", reported({"a": 1}))
    assert world.ask("update", {"state": {}})[0][1]["version"] == 2


def test_a_missing_shadow_is_not_found_by_its_name(world):
    assert world.ask("get", {"clientToken": "x"}) == [
        ("get/rejected", {"code": 404, "message": "No shadow exists with name: 't1'", "timestamp": T,
                          "clientToken": "x"})
    ]  # fmt: skip
    assert world.ask("name/n/delete")[0][1]["message"] == "No shadow exists with name: 't1~n'"


def test_versions_must_match(world):
    assert world.ask("update", reported({}, version=1))[0][1]["code"] == 409
    assert world.ask("update", reported({}, version=0))[0][0] == "update/accepted"
    assert world.ask("update", reported({}, version=1))[0][0] == "update/accepted"
    assert world.ask("update", reported({}, version=1, clientToken="x")) == [
        ("update/rejected", {"code": 409, "message": "Version conflict", "timestamp": T, "clientToken": "x"})
    ]


def test_a_deleted_shadow_keeps_its_counter_for_48_hours(world):
    world.ask("update", reported({"a": 1}))
    assert world.ask("delete", {"clientToken": "x"}) == [
        ("delete/accepted", {"version": 1, "timestamp": T, "clientToken": "x"})
    ]
    assert world.ask("get")[0][0] == "get/rejected"
    assert world.ask("update", reported({"b": 1}), T + 47 * 3600)[0][1]["version"] == 2
    assert world.ask("get")[0][1]["state"] == {"reported": {"b": 1}}
    world.ask("delete", now=T)
    assert world.ask("update", reported({}), T + 49 * 3600)[0][1]["version"] == 1


def test_named_and_classic_shadows_are_apart(world):
    world.ask("update", reported({"a": 1}))
    sent = world.ask("update", reported({"a": 2}), prefix=f"{PREFIX}/name/n")
    assert [topic for topic, _ in sent] == ["update/accepted", "update/documents"]
    assert world.ask("get")[0][1]["state"] == {"reported": {"a": 1}}


def deep(levels):
    value = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{", 400, "Payload contains invalid json"),
        (b"[]", 400, "Payload contains invalid json"),
        (b"", 400, "Payload contains invalid json"),
        (b'{"state":{"reported":{"a":NaN}}}', 400, "Payload contains invalid json"),
        (b'{"state":{"reported":{"a":"\\ud800"}}}', 400, "Payload contains invalid json"),
        (b"\xff", 415, "Unsupported documented encoding; supported encoding is UTF-8"),
        ({}, 400, "Missing required node: state"),
        ({"state": 1}, 400, "State node must be an object"),
        ({"state": {"desired": 1}}, 400, "Desired node must be an object"),
        ({"state": {"reported": []}}, 400, "Reported node must be an object"),
        ({"state": {}, "version": "1"}, 400, "Invalid version"),
        ({"state": {}, "version": True}, 400, "Invalid version"),
        ({"state": {}, "clientToken": "x" * 65}, 400, "Invalid clientToken"),
        ({"state": {}, "clientToken": 1}, 400, "Invalid clientToken"),
        (reported({"a": [1, None]}), 400, "State contains an invalid node"),
        (reported(deep(10)), 400, "JSON contains too many levels of nesting; maximum is 6"),
        (b'{"state":' * 5000, 400, "JSON contains too many levels of nesting; maximum is 6"),
        (reported({"a": "x" * 8180}), 413, "The payload exceeds the maximum size allowed"),
    ],
)
def test_bad_updates_are_rejected_in_the_words_of_the_service(world, body, code, message):
    ((topic, answer),) = world.ask("update", body)
    assert (topic, answer["code"], answer["message"]) == ("update/rejected", code, message)
    assert world.ask("get")[0][0] == "get/rejected"


def test_a_state_at_the_limits_is_accepted(world):
    empty = len('{"reported":{"a":""}}')
    assert world.ask("update", reported({"a": "x" * (8192 - empty)}))[0][0] == "update/accepted"
    assert world.ask("update", reported(deep(9)), prefix=f"{PREFIX}/name/n")[0][0] == "update/accepted"


def test_updates_that_together_exceed_the_limit_are_refused_whole(world):
    world.ask("update", reported({"a": "x" * 5000}))
    assert world.ask("update", {"state": {"desired": {"b": "x" * 5000}}})[0][1]["code"] == 413
    assert world.ask("get")[0][1]["version"] == 1


def test_garbage_is_rejected_for_get_and_delete_too(world):
    world.ask("update", reported({}))
    assert world.ask("get", b"nope")[0][1]["code"] == 400
    assert world.ask("delete", b"[1]")[0][1]["code"] == 400


def test_numbers_beyond_a_double_are_stored_as_text(world):
    sent = world.ask("update", b'{"state":{"reported":{"a":1e999,"b":-1' + b"0" * 400 + b"}}}")
    assert sent[0][1]["state"]["reported"] == {"a": "Infinity", "b": "-Infinity"}


def test_answers_are_not_requests(world):
    with world.store.transaction() as tx:
        assert not device_plane.handle(tx, Request(f"{PREFIX}/update/accepted", b"", "t1", "c"))
        assert not device_plane.handle(tx, Request("$aws/things/t1/jobs/get", b"", "t1", "c"))


@settings(max_examples=100, deadline=None)
@given(payload=st.binary(max_size=40) | st.text(alphabet='{}[]":,state1desired null', max_size=60).map(str.encode))
def test_any_payload_gets_one_answer(fuzzed, payload):
    answers = [topic for topic, _ in fuzzed.ask("update", payload) if topic.endswith(("accepted", "rejected"))]
    assert len(answers) == 1


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return World(tmp_path_factory.mktemp("shadow"))


def test_http_changes_are_seen_over_mqtt_and_http_reads_are_not(world):
    answer, sent = world.call("update_thing_shadow", thingName="t1", payload=b'{"state":{"desired":{"a":1}}}')
    assert json.loads(answer["payload"])["version"] == 1
    assert sent == [f"{PREFIX}/update/accepted", f"{PREFIX}/update/delta", f"{PREFIX}/update/documents"]
    answer, sent = world.call("get_thing_shadow", thingName="t1")
    assert json.loads(answer["payload"])["state"]["delta"] == {"a": 1}
    assert sent == []
    answer, sent = world.call("delete_thing_shadow", thingName="t1")
    assert sent == [f"{PREFIX}/delete/accepted"]


@pytest.mark.parametrize(
    ("operation", "members", "code", "status"),
    [
        ("get_thing_shadow", {}, "ResourceNotFoundException", 404),
        ("delete_thing_shadow", {"shadowName": "n"}, "ResourceNotFoundException", 404),
        ("get_thing_shadow", {"shadowName": "a b"}, "InvalidRequestException", 400),
        ("update_thing_shadow", {"payload": b"x"}, "InvalidRequestException", 400),
        ("update_thing_shadow", {"payload": b'{"state":{},"version":9}'}, "ConflictException", 409),
        ("update_thing_shadow", {"payload": b" " * 200_000}, "RequestEntityTooLargeException", 413),
        ("update_thing_shadow", {"payload": b"\xff"}, "UnsupportedDocumentEncodingException", 415),
    ],
)
def test_http_errors_are_typed_and_silent(world, operation, members, code, status):
    with pytest.raises(ApiError) as error:
        world.call(operation, thingName="t1", **members)
    assert (error.value.code, error.value.status) == (code, status)


def test_named_shadows_are_listed_in_pages(world):
    for name in ("c", "a", "b"):
        world.ask("update", reported({}), prefix=f"{PREFIX}/name/{name}")
    world.ask("update", reported({}))
    first, _ = world.call("list_named_shadows_for_thing", thingName="t1", pageSize=2)
    assert first["results"] == ["a", "b"]
    world.ask("name/b/delete")
    second, _ = world.call("list_named_shadows_for_thing", thingName="t1", pageSize=2, nextToken=first["nextToken"])
    assert (second["results"], "nextToken" in second) == (["c"], False)


def test_publish_sends_an_ordinary_message(world):
    with world.store.transaction() as tx:
        DataOperations().publish(tx, topic="a/b", qos=1, payload=b"x")
    assert [(m.topic, m.payload, m.qos) for m in tx.outgoing] == [("a/b", b"x", 1)]


@pytest.mark.parametrize("topic", ["", "$aws/things/t/shadow/get", "a/+", "#", "a" * 257, "/" * 8])
def test_publish_refuses_reserved_and_illegal_topics(world, topic):
    with pytest.raises(ApiError) as error:
        world.call("publish", topic=topic)
    assert error.value.code == "InvalidRequestException"
