# SPDX-License-Identifier: Apache-2.0
"""Job and job execution events on `$aws/events/…` (aws-iot-protocol.md section 4.9)."""

from __future__ import annotations

import json
import sqlite3
import uuid
from typing import Any

from edgefleet import names
from edgefleet.jobs import records
from edgefleet.jobs.rules import Execution
from edgefleet.store import Tx

_DETAILS = {
    "numberOfCanceledThings": "CANCELED",
    "numberOfRejectedThings": "REJECTED",
    "numberOfFailedThings": "FAILED",
    "numberOfRemovedThings": "REMOVED",
    "numberOfSucceededThings": "SUCCEEDED",
    "numberOfTimedOutThings": "TIMED_OUT",
}


def publish_job(tx: Tx, now: int, row: sqlite3.Row, operation: str) -> None:
    """`operation`: completed, canceled, deleted. Member times other than `timestamp` are milliseconds."""
    event: dict[str, Any] = {
        "eventType": "JOB",
        "eventId": str(uuid.uuid4()),
        "timestamp": now,
        "operation": operation,
        "jobId": row["job_id"],
        "status": operation.upper(),
        "targetSelection": row["target_selection"],
        "targets": json.loads(row["targets"]),
        "createdAt": row["created_at"] * 1000,
        "lastUpdatedAt": row["updated_at"] * 1000,
    }
    for member, column in (("description", "description"), ("comment", "comment"), ("reasonCode", "reason_code")):
        if row[column] is not None:
            event[member] = row[column]
    if row["force_canceled"]:
        event["forceCanceled"] = True
    if operation == "completed":
        event["completedAt"] = row["completed_at"] * 1000
    if operation in ("completed", "canceled"):
        counts = records.counts(tx, row["job_id"])
        event["jobProcessDetails"] = {member: counts.get(status, 0) for member, status in _DETAILS.items()}
    tx.publish(f"$aws/events/job/{row['job_id']}/{operation}", event, 0)


def publish_execution(tx: Tx, now: int, execution: Execution, operation: str | None = None) -> None:
    """The event of a terminal status, or of `operation` "deleted"."""
    event: dict[str, Any] = {
        "eventType": "JOB_EXECUTION",
        "eventId": str(uuid.uuid4()),
        "timestamp": now,
        "operation": operation or execution.status.lower(),
        "jobId": execution.job_id,
        "thingArn": names.arn(f"thing/{execution.thing}"),
        "status": execution.status if operation is None else operation.upper(),
        "executionNumber": execution.number,
    }
    if execution.details is not None:
        event["statusDetails"] = dict(execution.details)
    if execution.force_canceled:
        event["forceCanceled"] = True
    tx.publish(f"$aws/events/jobExecution/{execution.job_id}/{event['operation']}", event, 0)
