# SPDX-License-Identifier: Apache-2.0
"""Lists of jobs and executions for the control plane, page by page (aws-iot-protocol.md section 4.8)."""

from __future__ import annotations

import sqlite3
from typing import Any

from edgefleet import names, paging
from edgefleet.jobs import records
from edgefleet.store import Tx

MAX_PAGE = 250


def jobs(tx: Tx, status: str | None, selection: str | None, group: str | None, maximum: int | None,
         token: str | None) -> dict[str, Any]:  # fmt: skip
    """ListJobs, newest first. `group`: only jobs with this thing group among their targets."""
    count = paging.limit(maximum, MAX_PAGE)
    after = paging.decode(token, int)
    rows = tx.all(
        "SELECT * FROM jobs WHERE sequence < ? AND status = coalesce(?, status)"
        " AND target_selection = coalesce(?, target_selection)"
        " AND (? IS NULL OR EXISTS (SELECT 1 FROM json_each(targets) WHERE value = ?))"
        " ORDER BY sequence DESC LIMIT ?",
        (
            after[0] if after else 1 << 62,
            status,
            selection,
            group,
            None if group is None else names.arn(f"thinggroup/{group}"),
            count + 1,
        ),
    )
    page: dict[str, Any] = {"jobs": [_job(row) for row in rows[:count]]}
    if len(rows) > count:
        page["nextToken"] = paging.encode(rows[count - 1]["sequence"])
    return page


def of_job(tx: Tx, job_id: str, status: str | None, maximum: int | None, token: str | None) -> dict[str, Any]:
    """ListJobExecutionsForJob, most recently updated first.

    An execution that is updated between two pages moves to the front, behind the reader's back. So after the rows
    that were there at the start come those that changed since (then a second time, with their new status): nothing
    that exists is missed.
    """
    records.job(tx, job_id)
    count = paging.limit(maximum, MAX_PAGE)
    # (highest change when the walk began, last change given out, 1 while walking back, 0 while catching up)
    began, last, back = paging.decode(token, int, int, int) or (
        tx.value("SELECT max(change) FROM job_executions WHERE job_id = ?", (job_id,)) or 0,
        1 << 62,
        1,
    )
    rows: list[sqlite3.Row] = []
    if back:
        rows = tx.all(
            "SELECT * FROM job_executions WHERE job_id = ? AND change < ? AND change <= ?"
            " AND status = coalesce(?, status) ORDER BY change DESC LIMIT ?",
            (job_id, last, began, status, count),
        )
        last = rows[-1]["change"] if rows else last
        if len(rows) < count:
            back, last = 0, began
    if not back:
        caught_up = tx.all(
            "SELECT * FROM job_executions WHERE job_id = ? AND change > ? AND status = coalesce(?, status)"
            " ORDER BY change LIMIT ?",
            (job_id, last, status, count - len(rows)),
        )
        last = caught_up[-1]["change"] if caught_up else last
        rows.extend(caught_up)
    page: dict[str, Any] = {
        "executionSummaries": [
            {"thingArn": names.arn(f"thing/{row['thing_name']}"), "jobExecutionSummary": _summary(row)} for row in rows
        ]
    }
    if len(rows) == count and _more(tx, job_id, status, began, last, back):
        page["nextToken"] = paging.encode(began, last, back)
    return page


def _more(tx: Tx, job_id: str, status: str | None, began: int, last: int, back: int) -> bool:
    bounds = "(change < ? AND change <= ? OR change > ?)" if back else "change > ?"
    values = (last, began, began) if back else (last,)
    row = tx.one(
        f"SELECT 1 FROM job_executions WHERE job_id = ? AND {bounds} AND status = coalesce(?, status)",  # noqa: S608
        (job_id, *values, status),
    )
    return row is not None


def of_thing(tx: Tx, thing: str, status: str | None, job_id: str | None, maximum: int | None,
             token: str | None) -> dict[str, Any]:  # fmt: skip
    """ListJobExecutionsForThing, newest first."""
    count = paging.limit(maximum, MAX_PAGE)
    after = paging.decode(token, int)
    rows = tx.all(
        "SELECT * FROM job_executions WHERE thing_name = ? AND sequence < ? AND status = coalesce(?, status)"
        " AND job_id = coalesce(?, job_id) ORDER BY sequence DESC LIMIT ?",
        (thing, after[0] if after else 1 << 62, status, job_id, count + 1),
    )
    page: dict[str, Any] = {
        "executionSummaries": [{"jobId": row["job_id"], "jobExecutionSummary": _summary(row)} for row in rows[:count]]
    }
    if len(rows) > count:
        page["nextToken"] = paging.encode(rows[count - 1]["sequence"])
    return page


def _job(row: sqlite3.Row) -> dict[str, Any]:
    shown = {
        "jobArn": names.arn(f"job/{row['job_id']}"),
        "jobId": row["job_id"],
        "targetSelection": row["target_selection"],
        "status": row["status"],
        "createdAt": row["created_at"],
        "lastUpdatedAt": row["updated_at"],
    }
    if row["completed_at"] is not None:
        shown["completedAt"] = row["completed_at"]
    return shown


def _summary(row: sqlite3.Row) -> dict[str, Any]:
    shown = {"status": row["status"], "queuedAt": row["queued_at"]}
    if row["started_at"] is not None:
        shown["startedAt"] = row["started_at"]
    shown["lastUpdatedAt"] = row["updated_at"]
    shown["executionNumber"] = row["number"]
    shown["retryAttempt"] = row["retry_attempt"]
    return shown
