# SPDX-License-Identifier: Apache-2.0
"""Jobs and executions as rows. The only file of the package that names the columns of `job_executions`."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from edgefleet.errors import not_found
from edgefleet.jobs import documents, rules
from edgefleet.jobs.rules import Execution
from edgefleet.store import Tx


@dataclass(frozen=True)
class Context:
    """What an operation needs beside the transaction: the time (whole epoch seconds), and who signs URLs, if anyone."""

    now: int
    presign: documents.Presign | None = None

    @staticmethod
    def current(presign: documents.Presign | None = None) -> Context:
        return Context(int(time.time()), presign)


def job(tx: Tx, job_id: str) -> sqlite3.Row:
    """The row of a job. Raises ResourceNotFoundException."""
    row = tx.one("SELECT * FROM jobs WHERE job_id = ?", (job_id,))
    if row is None:
        raise not_found(f"Job {job_id} cannot be found.")
    return row


def config(row: sqlite3.Row, column: str) -> dict[str, Any] | None:
    """A configuration column of a job, parsed."""
    text = row[column]
    return None if text is None else json.loads(text)


def timeout_minutes(tx: Tx, job_id: str) -> int | None:
    """`inProgressTimeoutInMinutes` of a job."""
    text = tx.value("SELECT timeout_config FROM jobs WHERE job_id = ?", (job_id,))
    return json.loads(text).get("inProgressTimeoutInMinutes") if text else None


def device_document(tx: Tx, context: Context, job_id: str) -> Any:
    """The document of a job as a device gets it (read-only)."""
    row = tx.one("SELECT document, presigned_config FROM jobs WHERE job_id = ?", (job_id,))
    if row is None:
        raise not_found(f"Job {job_id} cannot be found.")
    presigned = config(row, "presigned_config") or {}
    return documents.for_device(row["document"], context.presign, presigned.get("expiresInSec", 3600))


def pending(tx: Tx, thing: str) -> list[Execution]:
    """The pending executions of a thing, the one that `$next` names first (D.1)."""
    rows = tx.all("SELECT * FROM job_executions WHERE thing_name = ? AND status IN ('QUEUED', 'IN_PROGRESS')", (thing,))
    return rules.queue_order(map(execution_of, rows))


def find(tx: Tx, job_id: str, thing: str, number: int | None = None) -> Execution | None:
    """An execution; without `number` the newest of the thing at that job."""
    row = tx.one(
        "SELECT * FROM job_executions WHERE job_id = ? AND thing_name = ? AND number = coalesce(?, number)"
        " ORDER BY number DESC LIMIT 1",
        (job_id, thing, number),
    )
    return None if row is None else execution_of(row)


def attempts(tx: Tx, job_id: str, thing: str) -> list[str]:
    """The statuses of all executions of a thing at a job, in order of their numbers."""
    rows = tx.all("SELECT status FROM job_executions WHERE job_id = ? AND thing_name = ? ORDER BY number",
                  (job_id, thing))  # fmt: skip
    return [row[0] for row in rows]


def with_status(tx: Tx, job_id: str, statuses: tuple[str, ...]) -> list[Execution]:
    """The executions of a job in one of the statuses, in order of creation."""
    found: list[Execution] = []
    for status in statuses:
        rows = tx.all("SELECT * FROM job_executions WHERE job_id = ? AND status = ?", (job_id, status))
        found.extend(map(execution_of, rows))
    return sorted(found, key=lambda one: one.sequence)


def counts(tx: Tx, job_id: str) -> dict[str, int]:
    """How many executions of a job are in each status; statuses without any may be missing."""
    return {row[0]: row[1] for row in tx.all("SELECT status, executions FROM job_counts WHERE job_id = ?", (job_id,))}


def create(tx: Tx, job_id: str, thing: str, now: int, retry_attempt: int = 0) -> None:
    """A new QUEUED execution with the next number of (thing, job), version 1 (section 3.3)."""
    number = 1 + (tx.value("SELECT max(number) FROM job_executions WHERE job_id = ? AND thing_name = ?",
                           (job_id, thing)) or 0)  # fmt: skip
    tx.execute(
        "INSERT INTO job_executions (job_id, thing_name, number, status, version, queued_at, updated_at,"
        " retry_attempt, change) VALUES (?, ?, ?, 'QUEUED', 1, ?, ?, ?, ?)",
        (job_id, thing, number, now, now, retry_attempt, _next_change(tx, job_id)),
    )
    _count(tx, job_id, rules.QUEUED, 1)


def save(tx: Tx, before: Execution, after: Execution) -> None:
    """Store a changed execution (same job, thing and number)."""
    tx.execute(
        "UPDATE job_executions SET status = ?, version = ?, details = ?, started_at = ?, updated_at = ?,"
        " force_canceled = ?, progress_deadline = ?, step_deadline = ?, deadline = ?, change = ? WHERE sequence = ?",
        (
            after.status,
            after.version,
            None if after.details is None else json.dumps(dict(after.details)),
            after.started_at,
            after.updated_at,
            after.force_canceled,
            after.progress_deadline,
            after.step_deadline,
            after.deadline,
            _next_change(tx, after.job_id),
            before.sequence,
        ),
    )
    if before.status != after.status:
        _count(tx, after.job_id, before.status, -1)
        _count(tx, after.job_id, after.status, 1)


def delete(tx: Tx, execution: Execution) -> None:
    """Forget one execution."""
    tx.execute("DELETE FROM job_executions WHERE sequence = ?", (execution.sequence,))
    _count(tx, execution.job_id, execution.status, -1)


def _next_change(tx: Tx, job_id: str) -> int:
    return 1 + (tx.value("SELECT max(change) FROM job_executions WHERE job_id = ?", (job_id,)) or 0)


def _count(tx: Tx, job_id: str, status: str, difference: int) -> None:
    tx.execute(
        "INSERT INTO job_counts VALUES (?, ?, ?)"
        " ON CONFLICT (job_id, status) DO UPDATE SET executions = executions + excluded.executions",
        (job_id, status, difference),
    )


def execution_of(row: sqlite3.Row) -> Execution:
    """A row of `job_executions` as the rules know it."""
    return Execution(
        job_id=row["job_id"],
        thing=row["thing_name"],
        number=row["number"],
        status=row["status"],
        version=row["version"],
        queued_at=row["queued_at"],
        updated_at=row["updated_at"],
        sequence=row["sequence"],
        started_at=row["started_at"],
        details=None if row["details"] is None else json.loads(row["details"]),
        progress_deadline=row["progress_deadline"],
        step_deadline=row["step_deadline"],
        retry_attempt=row["retry_attempt"],
        force_canceled=bool(row["force_canceled"]),
    )
