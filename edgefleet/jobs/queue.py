# SPDX-License-Identifier: Apache-2.0
"""The pending queue of one thing: how it is shown, and what is told to the thing when it changes.

Source: aws-iot-protocol.md sections 3.3, 3.11, Appendix D.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgeagent import topics
from edgefleet.jobs import records
from edgefleet.jobs.records import Context
from edgefleet.jobs.rules import IN_PROGRESS, QUEUED, Execution
from edgefleet.store import Tx

MAX_NOTIFIED = 10  # summaries in one `notify`


@contextmanager
def changing(tx: Tx, context: Context, thing: str) -> Iterator[None]:
    """Wrap every change of a thing's executions; queue the change's reply inside the block.

    Afterwards `notify` is queued if the set of pending executions differs, then `notify-next` if `$next` is another
    one (section 0, rules 11 and 12). Nothing is queued when the block raises.
    """
    before = records.pending(tx, thing)
    yield
    after = records.pending(tx, thing)
    if {one.key for one in before} != {one.key for one in after}:
        tx.publish(topics.jobs(thing, "notify"), {"timestamp": context.now, "jobs": _grouped(after[:MAX_NOTIFIED])})
    front = after[0] if after else None
    if (before[0].key if before else None) != (front.key if front else None):
        message: dict[str, Any] = {"timestamp": context.now}
        if front is not None:
            message["execution"] = view(tx, context, front)
        tx.publish(topics.jobs(thing, "notify-next"), message)


def summary(execution: Execution) -> dict[str, Any]:
    """JobExecutionSummary of the device plane."""
    shown: dict[str, Any] = {"jobId": execution.job_id, "queuedAt": execution.queued_at}
    if execution.started_at is not None:
        shown["startedAt"] = execution.started_at
    shown["lastUpdatedAt"] = execution.updated_at
    shown["executionNumber"] = execution.number
    shown["versionNumber"] = execution.version
    return shown


def view(tx: Tx, context: Context, execution: Execution, include_document: bool = True) -> dict[str, Any]:
    """JobExecutionData as it goes over MQTT: no `thingName`, the document an object (section 0, rules 6 and 15)."""
    shown: dict[str, Any] = {"jobId": execution.job_id, "status": execution.status}
    if execution.details is not None:
        shown["statusDetails"] = dict(execution.details)
    shown["queuedAt"] = execution.queued_at
    if execution.started_at is not None:
        shown["startedAt"] = execution.started_at
    shown["lastUpdatedAt"] = execution.updated_at
    shown["versionNumber"] = execution.version
    shown["executionNumber"] = execution.number
    if execution.deadline is not None:
        shown["approximateSecondsBeforeTimedOut"] = max(0, execution.deadline - context.now)
    if include_document:
        shown["jobDocument"] = records.device_document(tx, context, execution.job_id)
    return shown


def by_status(executions: list[Execution], status: str) -> list[dict[str, Any]]:
    """The summaries of those in `status`, order kept."""
    return [summary(one) for one in executions if one.status == status]


def _grouped(executions: list[Execution]) -> dict[str, Any]:
    groups = {status: by_status(executions, status) for status in (IN_PROGRESS, QUEUED)}
    return {status: summaries for status, summaries in groups.items() if summaries}
