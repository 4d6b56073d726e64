# SPDX-License-Identifier: Apache-2.0
"""The four operations of the device plane, common to MQTT and HTTP: request in, answer out, neither front known.

Each takes a `reply` that is called with the answer before anything is notified (section 0, rule 12).
Source: aws-iot-protocol.md sections 3.4-3.7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgefleet.jobs import lifecycle, queue, records, requests, rules
from edgefleet.jobs.records import Context
from edgefleet.jobs.rules import IN_PROGRESS, QUEUED, TERMINAL, Execution, JobError
from edgefleet.store import Tx

Reply = Callable[[dict[str, Any]], None]
NEXT = "$next"


def get_pending(tx: Tx, context: Context, thing: str, reply: Reply) -> None:
    """GetPendingJobExecutions."""
    pending = records.pending(tx, thing)
    reply(
        {"inProgressJobs": queue.by_status(pending, IN_PROGRESS), "queuedJobs": queue.by_status(pending, QUEUED)},
    )


def start_next(tx: Tx, context: Context, thing: str, body: Mapping[str, Any], reply: Reply) -> None:
    """StartNextPendingJobExecution. An idle thing gets an answer without `execution`."""
    details, step_minutes = requests.start_next(body)
    pending = records.pending(tx, thing)
    if not pending:
        reply({})
        return
    before = pending[0]
    timeout = records.timeout_minutes(tx, before.job_id)
    after = rules.start(before, context.now, details, step_minutes, timeout)
    with queue.changing(tx, context, thing):
        if after != before:
            records.save(tx, before, after)
        reply({"execution": queue.view(tx, context, after)})


def describe(tx: Tx, context: Context, thing: str, job_id: str, body: Mapping[str, Any], reply: Reply) -> None:
    """DescribeJobExecution; `job_id` may be `$next`, which starts nothing.

    Raises JobError ResourceNotFound, or TerminalStateReached for a finished execution.
    """
    number, include_document = requests.describe(body)
    if job_id == NEXT:
        pending = records.pending(tx, thing)
        if not pending:
            reply({})
            return
        execution = pending[0]
    else:
        execution = _existing(tx, thing, job_id, number)
    if execution.status in TERMINAL:
        raise JobError(
            "TerminalStateReached", f"Job execution of {job_id} for {thing} is neither IN_PROGRESS nor QUEUED"
        )
    reply({"execution": queue.view(tx, context, execution, include_document)})


def update(tx: Tx, context: Context, thing: str, job_id: str, body: Mapping[str, Any], reply: Reply) -> None:
    """UpdateJobExecution, with everything that follows from it. Raises JobError."""
    request = requests.update(body)
    before = _existing(tx, thing, job_id, request.number)
    after = rules.report(before, request, context.now, records.timeout_minutes(tx, job_id))
    answer: dict[str, Any] = {}
    if request.include_state:
        answer["executionState"] = after.state
    if request.include_document:
        answer["jobDocument"] = records.device_document(tx, context, job_id)
    with queue.changing(tx, context, thing):
        if after.status in TERMINAL:
            lifecycle.end(tx, context, before, after)
        else:
            records.save(tx, before, after)
        reply(answer)
    if after.status in TERMINAL:
        lifecycle.settle(tx, context, after)


def _existing(tx: Tx, thing: str, job_id: str, number: int | None) -> Execution:
    execution = records.find(tx, job_id, thing, number)
    if execution is None:
        which = "" if number is None else f" with execution number {number}"
        raise JobError("ResourceNotFound", f"Job {job_id}{which} not found for {thing}")
    return execution
