# SPDX-License-Identifier: Apache-2.0
"""Jobs as a device sees them over MQTT (aws-iot-protocol.md section 3, Appendix F 1-8)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.jobs import device_plane
from edgefleet.messages import Request
from edgefleet.store import Store
from tests.fleet.jobs_world import World

T = 1_700_000_000


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_next_of_an_idle_thing_is_accepted_without_execution_and_token(world):
    assert world.ask("$next/get") == ("accepted", {"timestamp": T})


def test_start_next_of_an_idle_thing_is_accepted_without_execution(world):
    assert world.ask("start-next", {"clientToken": "x"}) == ("accepted", {"clientToken": "x", "timestamp": T})


def test_pending_lists_are_both_present_and_empty(world):
    assert world.ask("get") == ("accepted", {"timestamp": T, "inProgressJobs": [], "queuedJobs": []})


def test_start_next_starts_the_oldest_and_a_second_one_returns_it_unchanged(world):
    world.create("j1")
    expected = {
        "jobId": "j1",
        "status": "IN_PROGRESS",
        "statusDetails": {"a": "1"},
        "queuedAt": T,
        "startedAt": T,
        "lastUpdatedAt": T,
        "versionNumber": 2,
        "executionNumber": 1,
        "jobDocument": {"operation": "reboot"},
    }
    assert world.ask("start-next", {"statusDetails": {"a": "1"}})[1]["execution"] == expected
    assert world.notified() == []
    assert world.ask("start-next", {"statusDetails": {"a": "2"}})[1]["execution"] == expected


def test_expected_version_is_accepted_quoted_and_a_wrong_one_tells_the_state(world):
    world.create("j1")
    world.ask("start-next")
    body = {"status": "IN_PROGRESS", "expectedVersion": "2", "includeJobExecutionState": True}
    assert world.ask("j1/update", body)[1]["executionState"] == {"status": "IN_PROGRESS", "versionNumber": 3}
    outcome, answer = world.ask("j1/update", {"status": "IN_PROGRESS", "expectedVersion": 1, "clientToken": "c"})
    assert outcome == "rejected"
    assert answer == {
        "clientToken": "c",
        "timestamp": T,
        "executionState": {"status": "IN_PROGRESS", "versionNumber": 3},
        "code": "VersionMismatch",
        "message": "Expected version 1 but found version 3",
    }


def test_succeeding_from_queued_is_legal_once(world):
    world.create("j1")
    assert world.ask("j1/update", {"status": "SUCCEEDED"}) == ("accepted", {"timestamp": T})
    assert world.value("SELECT started_at FROM job_executions") == T
    assert world.status("j1") == "COMPLETED"
    outcome, answer = world.ask("j1/update", {"status": "FAILED"})
    assert (outcome, answer["code"]) == ("rejected", "InvalidStateTransition")
    assert answer["executionState"] == {"status": "SUCCEEDED", "versionNumber": 2}
    assert world.ask("j1/get")[1]["code"] == "TerminalStateReached"


def test_statuses_of_the_service_are_refused_without_state(world):
    world.create("j1")
    answer = world.ask("j1/update", {"status": "CANCELED"})[1]
    assert answer["code"] == "InvalidStateTransition"
    assert "executionState" not in answer
    assert world.ask("j1/update", {"status": "FOO"})[1]["code"] == "InvalidRequest"


def test_checks_come_in_the_order_of_the_service(world):
    bad_details, bad_status = {"statusDetails": {"a": 1}}, {"status": "FOO"}
    assert "statusDetails" in world.ask("nope/update", {**bad_details, **bad_status})[1]["message"]
    assert world.ask("nope/update", bad_status)[1]["code"] == "InvalidRequest"
    assert world.ask("nope/update", {"status": "CANCELED"})[1]["code"] == "InvalidStateTransition"
    assert world.ask("nope/update", {"status": "FAILED", "expectedVersion": 9})[1] == {
        "timestamp": T,
        "code": "ResourceNotFound",
        "message": "Job nope not found for t1",
    }


def test_another_execution_number_is_not_found(world):
    world.create("j1")
    assert world.ask("j1/get", {"executionNumber": 2})[1]["code"] == "ResourceNotFound"
    assert world.ask("j1/update", {"status": "FAILED", "executionNumber": 2})[1]["code"] == "ResourceNotFound"
    assert world.ask("j1/get", {"executionNumber": 1})[0] == "accepted"


def test_describe_without_document_omits_it(world):
    world.create("j1")
    assert "jobDocument" not in world.ask("j1/get", {"includeJobDocument": False})[1]["execution"]


def test_status_details_replace_the_map_when_given_and_stay_when_not(world):
    world.create("j1")
    world.ask("j1/update", {"status": "IN_PROGRESS", "statusDetails": {"a": "1", "b": "2"}})
    world.ask("j1/update", {"status": "IN_PROGRESS"})
    assert world.ask("j1/get")[1]["execution"]["statusDetails"] == {"a": "1", "b": "2"}
    world.ask("j1/update", {"status": "IN_PROGRESS", "statusDetails": {}})
    assert world.ask("j1/get")[1]["execution"]["statusDetails"] == {}


def test_an_update_can_bring_the_document_back(world):
    world.create("j1")
    answer = world.ask("j1/update", {"status": "IN_PROGRESS", "includeJobDocument": True})[1]
    assert answer == {"timestamp": T, "jobDocument": {"operation": "reboot"}}


@pytest.mark.parametrize("payload", [b"{", b"[]", b"\xff", b"nope", b"[" * 100_000, b'{"a":NaN}', b'{"clientToken":'])
def test_what_is_no_json_object_is_invalid_json_without_token(world, payload):
    outcome, answer = world.ask("get", payload)
    assert (outcome, answer["code"]) == ("rejected", "InvalidJson")
    assert "clientToken" not in answer


@pytest.mark.parametrize("rest", ["", "gets", "$next/update", "a/b/get", "a b/get", "get/accepted", "notify"])
def test_other_topics_under_jobs_are_invalid(world, rest):
    assert world.ask(rest)[1]["code"] == "InvalidTopic"


def test_a_token_that_is_no_string_is_refused(world):
    assert world.ask("get", {"clientToken": 5})[1]["code"] == "InvalidRequest"


def test_topics_of_others_are_not_ours(world):
    request = Request("$aws/things/t1/shadow/get", b"", "t1", "c")
    assert world.do(lambda tx, context: device_plane.handle(tx, request, context)) is False


def test_the_worked_sequence_of_notifications(world):
    def shape():
        """What was notified: job ids by status, and the next job with its status (() if none)."""
        out = {}
        for kind, message in world.notified():
            assert message["timestamp"] == T
            if kind == "notify":
                out[kind] = {status: [one["jobId"] for one in jobs] for status, jobs in message["jobs"].items()}
            else:
                execution = message.get("execution")
                out[kind] = (execution["jobId"], execution["status"]) if execution else ()
        return out

    def update(job_id, status):
        world.ask(f"{job_id}/update", {"status": status})
        return shape()

    world.create("j1")
    assert shape() == {"notify": {"QUEUED": ["j1"]}, "notify-next": ("j1", "QUEUED")}
    world.create("j2")
    assert shape() == {"notify": {"QUEUED": ["j1", "j2"]}}
    world.ask("start-next")
    assert shape() == {}
    world.create("j3")
    assert shape() == {"notify": {"IN_PROGRESS": ["j1"], "QUEUED": ["j2", "j3"]}}
    assert update("j1", "SUCCEEDED") == {"notify": {"QUEUED": ["j2", "j3"]}, "notify-next": ("j2", "QUEUED")}
    assert update("j3", "IN_PROGRESS") == {"notify-next": ("j3", "IN_PROGRESS")}
    assert update("j2", "REJECTED") == {"notify": {"IN_PROGRESS": ["j3"]}}
    world.delete("j3")
    assert shape() == {"notify": {}, "notify-next": ()}
    assert world.notified() == [("notify", {"timestamp": T, "jobs": {}}), ("notify-next", {"timestamp": T})]


def test_a_terminal_update_is_answered_then_notified_then_told_as_event(world):
    world.create("j1")
    world.ask("j1/update", {"status": "SUCCEEDED"})
    head = "$aws/things/t1/jobs/"
    assert [message.topic for message in world.sent] == [
        head + "j1/update/accepted",
        head + "notify",
        head + "notify-next",
        "$aws/events/jobExecution/j1/succeeded",
        "$aws/events/job/j1/completed",
    ]


def test_notify_lists_ten_at_most(world):
    for n in range(12):
        world.create(f"j{n}")
    ((_, message),) = world.notified()
    assert [one["jobId"] for one in message["jobs"]["QUEUED"]] == [f"j{n}" for n in range(10)]
    assert len(world.ask("get")[1]["queuedJobs"]) == 12


def test_summaries_have_exactly_the_members_of_the_service(world):
    world.create("j1")
    world.ask("start-next")
    assert world.ask("get")[1]["inProgressJobs"] == [
        {"jobId": "j1", "queuedAt": T, "startedAt": T, "lastUpdatedAt": T, "executionNumber": 1, "versionNumber": 2}
    ]


def test_a_step_timer_ends_in_timed_out_with_notifications_and_event(world):
    world.create("j1")
    execution = world.ask("start-next", {"stepTimeoutInMinutes": 1})[1]["execution"]
    assert execution["approximateSecondsBeforeTimedOut"] == 60
    world.tick(59)
    assert world.sent == []
    world.tick(1)
    assert [kind for kind, _ in world.notified()] == ["notify", "notify-next"]
    assert world.events() == ["jobExecution/j1/timed_out", "job/j1/completed"]
    assert world.value("SELECT version FROM job_executions") == 3
    assert world.ask("j1/update", {"status": "SUCCEEDED"})[1]["executionState"]["status"] == "TIMED_OUT"


def test_the_in_progress_timer_starts_with_the_execution(world):
    world.create("j1", timeout_config={"inProgressTimeoutInMinutes": 2})
    world.tick(600)
    world.ask("start-next")
    world.tick(119)
    assert world.ask("j1/get")[1]["execution"]["approximateSecondsBeforeTimedOut"] == 1
    world.tick(1)
    assert world.ask("j1/get")[1]["code"] == "TerminalStateReached"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
members = st.dictionaries(
    st.sampled_from(["status", "statusDetails", "expectedVersion", "executionNumber", "includeJobDocument",
                     "stepTimeoutInMinutes", "clientToken"]), json_values, max_size=4)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(rest=st.sampled_from(["get", "start-next", "$next/get", "j1/get", "j1/update", "x/y/z"]),
       payload=st.binary(max_size=30) | members.map(lambda body: json.dumps(body).encode()))  # fmt: skip
def test_anything_a_device_sends_gets_exactly_one_answer(any_world, rest, payload):
    outcome, answer = any_world.ask(rest, payload)
    assert outcome == "accepted" or answer["code"] in (
        "InvalidJson", "InvalidRequest", "InvalidTopic", "InvalidStateTransition", "VersionMismatch",
        "ResourceNotFound", "TerminalStateReached",
    )  # fmt: skip


@pytest.fixture(scope="module")
def any_world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("any"))
    world.create("j1")
    return world


def test_an_accepted_status_survives_the_process(tmp_path):
    world = World(tmp_path)
    world.create("j1")
    world.ask("j1/update", {"status": "SUCCEEDED"})
    with Store(tmp_path / "fleet.db").reading() as tx:
        assert tx.value("SELECT status FROM job_executions") == "SUCCEEDED"
