# SPDX-License-Identifier: Apache-2.0
"""The pure rules of job executions (aws-iot-protocol.md sections 3.5-3.9, 4.3-4.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.jobs import requests, rules
from edgefleet.jobs.rules import Execution, JobError, Update

NEW = Execution("j", "t", 1, rules.QUEUED, 1, queued_at=100, updated_at=100)

updates = st.builds(
    Update,
    status=st.sampled_from(sorted(rules.SETTABLE)),
    details=st.none() | st.dictionaries(st.sampled_from("ab"), st.text("xyz", min_size=1), max_size=2),
    expected_version=st.none() | st.integers(0, 4),
    step_minutes=st.none() | st.just(-1) | st.integers(1, 3),
)
steps = st.one_of(
    st.tuples(st.just("report"), updates),
    st.tuples(st.just("start"), st.none() | st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.booleans()),
    st.tuples(st.just("wait"), st.integers(1, 400)),
    st.tuples(st.just("remove"), st.none()),
)


@given(st.lists(steps, max_size=12), st.none() | st.integers(1, 5))
def test_whatever_happens_there_is_one_terminal_status_and_versions_count_every_change(history, timeout):
    execution, now = NEW, 100
    for kind, argument in history:
        before = execution
        try:
            if kind == "report":
                execution = rules.report(execution, argument, now, timeout)
            elif kind == "start" and execution.status in rules.PENDING:
                execution = rules.start(execution, now, None, argument, timeout)
            elif kind == "cancel":
                execution = rules.cancel(execution, now, argument)
            elif kind == "remove":
                execution = rules.remove(execution, now)
            else:
                now += argument if kind == "wait" else 0
                execution = rules.time_out(execution, now)
        except JobError as error:
            assert execution is before
            assert error.state == execution.state
        if before.status in rules.TERMINAL:
            assert execution == before
        elif execution.status != before.status and execution.status != rules.REMOVED:
            assert execution.version == before.version + 1
        assert before.version <= execution.version <= before.version + 1
        assert (execution.deadline is None) or execution.status == rules.IN_PROGRESS
        if execution.progress_deadline is not None:
            assert execution.deadline <= execution.progress_deadline
        if execution.status in (rules.IN_PROGRESS, rules.SUCCEEDED, rules.FAILED):
            assert execution.started_at is not None
        execution = replace(execution)


@given(st.lists(st.tuples(st.sampled_from(["QUEUED", "IN_PROGRESS"]), st.integers(0, 3)), max_size=8))
def test_in_progress_comes_first_then_the_order_of_queueing(rows):
    executions = [
        replace(NEW, job_id=str(n), status=status, queued_at=queued, sequence=n)
        for n, (status, queued) in enumerate(rows)
    ]
    ordered = rules.queue_order(reversed(executions))
    assert [(e.status != "IN_PROGRESS", e.queued_at, e.sequence) for e in ordered] == sorted(
        (e.status != "IN_PROGRESS", e.queued_at, e.sequence) for e in executions
    )


def test_version_is_checked_before_the_terminal_status():
    done = replace(NEW, status=rules.SUCCEEDED, version=3)
    with pytest.raises(JobError) as error:
        rules.report(done, Update(rules.FAILED, expected_version=2), 200, None)
    assert error.value.code == "VersionMismatch"
    assert error.value.state == {"status": "SUCCEEDED", "versionNumber": 3}


def test_rejecting_does_not_set_started_at():
    assert rules.report(NEW, Update(rules.REJECTED), 200, None).started_at is None


def test_a_step_timer_cannot_outlive_the_in_progress_timer():
    started = rules.start(NEW, 100, None, 10, 5)
    assert started.deadline == 100 + 5 * 60


def test_a_new_step_timer_discards_the_old_one_and_minus_one_cancels_it():
    started = rules.start(NEW, 100, None, 1, None)
    longer = rules.report(started, Update(rules.IN_PROGRESS, step_minutes=5), 150, None)
    assert longer.deadline == 150 + 300
    assert rules.report(longer, Update(rules.IN_PROGRESS, step_minutes=-1), 160, None).deadline is None


def test_the_device_cannot_restart_the_in_progress_timer():
    started = rules.start(NEW, 100, None, None, 5)
    assert rules.report(started, Update(rules.IN_PROGRESS), 300, 5).deadline == 100 + 300


def test_abort_needs_the_minimum_and_the_threshold():
    config = {
        "criteriaList": [
            {"failureType": "FAILED", "action": "CANCEL", "thresholdPercentage": 20, "minNumberOfExecutedThings": 5}
        ]
    }
    assert rules.aborting(config, {"FAILED": 1, "SUCCEEDED": 3, "QUEUED": 6}) is None
    assert rules.aborting(config, {"FAILED": 1, "SUCCEEDED": 4, "QUEUED": 5}) is not None
    assert rules.aborting(config, {"FAILED": 1, "SUCCEEDED": 4, "CANCELED": 1}) is None
    assert rules.aborting(config, {"REJECTED": 5}) is None


def test_all_counts_failed_rejected_and_timed_out():
    config = {
        "criteriaList": [
            {"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 33.33, "minNumberOfExecutedThings": 1}
        ]
    }
    assert rules.aborting(config, {"TIMED_OUT": 1, "SUCCEEDED": 2}) is not None
    assert rules.aborting(config, {"TIMED_OUT": 33, "SUCCEEDED": 68}) is None


def test_retries_are_counted_by_failure_type():
    config = {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 1}]}
    assert rules.retrying(config, "FAILED", ["FAILED"])
    assert not rules.retrying(config, "FAILED", ["FAILED", "FAILED"])
    assert not rules.retrying(config, "TIMED_OUT", ["TIMED_OUT"])
    both = {"criteriaList": [{"failureType": "ALL", "numberOfRetries": 1}]}
    assert not rules.retrying(both, "TIMED_OUT", ["FAILED", "TIMED_OUT"])
    assert not rules.retrying(both, "REJECTED", ["REJECTED"])


def test_exponential_rollout_follows_the_worked_example():
    config = {
        "maximumPerMinute": 1000,
        "exponentialRate": {
            "baseRatePerMinute": 50,
            "incrementFactor": 2,
            "rateIncreaseCriteria": {"numberOfNotifiedThings": 1000},
        },
    }
    assert [rules.rollout_rate(config, n, 0) for n in (0, 999, 1000, 2000, 3000, 10**9)] == [
        50, 50, 100, 200, 400, 1000,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "details",
    [
        {f"k{n}": "v" for n in range(11)},
        {"k" * 129: "v"},
        {"k": "v" * 1025},
        {"k": ""},
        {"k": 1},
        {"k": "a\nb"},
        {"k": "\ud800"},
        {"a b": "v"},
        {"": "v"},
        [],
        "x",
    ],
)
def test_status_details_out_of_bounds_are_refused(details):
    with pytest.raises(JobError) as error:
        requests.update({"status": "SUCCEEDED", "statusDetails": details})
    assert error.value.code == "InvalidRequest"


def test_status_details_at_the_bounds_pass():
    details = {**{f"k{n}": "v" for n in range(9)}, "k" * 128: "v" * 1024}
    assert requests.update({"status": "SUCCEEDED", "statusDetails": details}).details == details


@pytest.mark.parametrize("minutes", [0, -2, 10081, 1.5, True, "x", []])
def test_step_timeouts_out_of_bounds_are_refused(minutes):
    with pytest.raises(JobError) as error:
        requests.update({"status": "IN_PROGRESS", "stepTimeoutInMinutes": minutes})
    assert error.value.code == "InvalidRequest"


def test_statuses_of_the_service_are_a_transition_error_and_unknown_ones_a_request_error():
    for status, code in (("CANCELED", "InvalidStateTransition"), ("QUEUED", "InvalidStateTransition"),
                         ("FOO", "InvalidRequest"), (None, "InvalidRequest"), (["x"], "InvalidRequest")):  # fmt: skip
        with pytest.raises(JobError) as error:
            requests.update({"status": status})
        assert (error.value.code, error.value.state) == (code, None)
