# SPDX-License-Identifier: Apache-2.0
"""What happens to a job when its executions begin and end: release, retry, abort, completion, cancel, delete.

Everything here runs inside the transaction of its cause, so that an abort is decided together with the status that
triggers it. Source: aws-iot-protocol.md sections 4.3-4.8.
"""

from __future__ import annotations

from edgefleet.errors import ApiError, invalid
from edgefleet.jobs import events, queue, records, rules
from edgefleet.jobs.records import Context
from edgefleet.jobs.rules import IN_PROGRESS, PENDING, QUEUED, Execution, JobError
from edgefleet.store import Tx

CANCEL_REASON = "ABORT_CANCEL"


def release(tx: Tx, context: Context, job_id: str, limit: int) -> int:
    """Create the executions of the next `limit` waiting things, telling each. Returns how many."""
    rows = tx.all(
        "SELECT position, thing_name FROM job_waiting WHERE job_id = ? ORDER BY position LIMIT ?", (job_id, limit)
    )
    for row in rows:
        with queue.changing(tx, context, row["thing_name"]):
            records.create(tx, job_id, row["thing_name"], context.now)
    if rows:
        tx.execute("DELETE FROM job_waiting WHERE job_id = ? AND position <= ?", (job_id, rows[-1]["position"]))
    return len(rows)


def end(tx: Tx, context: Context, before: Execution, after: Execution) -> None:
    """Store a terminal status and queue the retry it may cause. Call inside `queue.changing`, then `settle`."""
    records.save(tx, before, after)
    row = records.job(tx, after.job_id)
    if row["status"] != IN_PROGRESS:
        return
    attempts = records.attempts(tx, after.job_id, after.thing)
    if rules.retrying(records.config(row, "retry_config"), after.status, attempts):
        records.create(tx, after.job_id, after.thing, context.now, after.retry_attempt + 1)


def settle(tx: Tx, context: Context, ended: Execution) -> None:
    """After an execution ended and its thing was told: abort, events, completion, in that order (section 3.11)."""
    row = records.job(tx, ended.job_id)
    comment = None
    if row["status"] == IN_PROGRESS:
        comment = rules.aborting(records.config(row, "abort_config"), records.counts(tx, ended.job_id))
    if comment is not None:
        cancel(tx, context, ended.job_id, force=False, reason_code=CANCEL_REASON, comment=comment, cause=ended)
        return
    events.publish_execution(tx, context.now, ended)
    complete(tx, context, ended.job_id)


def complete(tx: Tx, context: Context, job_id: str) -> None:
    """COMPLETED, if nothing waits and every execution is terminal (section 4.7)."""
    row = records.job(tx, job_id)
    if row["status"] != IN_PROGRESS or row["target_selection"] != "SNAPSHOT":
        return
    counts = records.counts(tx, job_id)
    if any(counts.get(status) for status in PENDING):
        return
    if tx.one("SELECT 1 FROM job_waiting WHERE job_id = ?", (job_id,)) is not None:
        return
    tx.execute(
        "UPDATE jobs SET status = 'COMPLETED', completed_at = ?, updated_at = ? WHERE job_id = ?",
        (context.now, context.now, job_id),
    )
    events.publish_job(tx, context.now, records.job(tx, job_id), "completed")


def cancel(tx: Tx, context: Context, job_id: str, *, force: bool, reason_code: str | None = None,
           comment: str | None = None, cause: Execution | None = None) -> None:  # fmt: skip
    """CancelJob: QUEUED executions end CANCELED, with `force` those IN_PROGRESS too; nothing more is rolled out.

    cause: the execution whose end aborts the job; its event precedes the others.
    Raises InvalidRequestException for a job that is already finished (section 4.8).
    """
    row = records.job(tx, job_id)
    if row["status"] != IN_PROGRESS:
        raise invalid(f"Job {job_id} is already finished with status {row['status']}")
    tx.execute("DELETE FROM job_waiting WHERE job_id = ?", (job_id,))
    tx.execute(
        "UPDATE jobs SET status = 'CANCELED', force_canceled = ?, reason_code = ?, comment = ?, updated_at = ?"
        " WHERE job_id = ?",
        (force, reason_code, comment, context.now, job_id),
    )
    canceled = []
    for execution in records.with_status(tx, job_id, (QUEUED, IN_PROGRESS) if force else (QUEUED,)):
        with queue.changing(tx, context, execution.thing):
            after = rules.cancel(execution, context.now, force)
            records.save(tx, execution, after)
        canceled.append(after)
    for ended in ([cause] if cause is not None else []) + canceled:
        events.publish_execution(tx, context.now, ended)
    events.publish_job(tx, context.now, records.job(tx, job_id), "canceled")


def delete(tx: Tx, context: Context, job_id: str, *, force: bool) -> None:
    """DeleteJob: gone with all its executions; the id may be used again.

    Raises InvalidStateTransitionException for an unfinished job without `force`.
    """
    row = records.job(tx, job_id)
    if row["status"] == IN_PROGRESS and not force:
        raise ApiError(
            "InvalidStateTransitionException",
            f"Job {job_id} in status IN_PROGRESS cannot be deleted without force",
            409,
        )
    pending = records.with_status(tx, job_id, (QUEUED, IN_PROGRESS))
    for execution in pending:
        with queue.changing(tx, context, execution.thing):
            records.delete(tx, execution)
    tx.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
    for execution in pending:
        events.publish_execution(tx, context.now, execution, "deleted")
    events.publish_job(tx, context.now, row, "deleted")


def cancel_execution(tx: Tx, context: Context, execution: Execution, force: bool,
                     details: dict[str, str] | None) -> None:  # fmt: skip
    """CancelJobExecution. Raises JobError InvalidStateTransition."""
    after = rules.cancel(execution, context.now, force, details)
    with queue.changing(tx, context, execution.thing):
        end(tx, context, execution, after)
    settle(tx, context, after)


def delete_execution(tx: Tx, context: Context, execution: Execution, force: bool) -> None:
    """DeleteJobExecution. Raises JobError InvalidStateTransition for one IN_PROGRESS without `force`."""
    if execution.status == IN_PROGRESS and not force:
        raise JobError("InvalidStateTransition", "Job execution in status IN_PROGRESS cannot be deleted without force")
    with queue.changing(tx, context, execution.thing):
        records.delete(tx, execution)
    events.publish_execution(tx, context.now, execution, "deleted")
    complete(tx, context, execution.job_id)


def time_out(tx: Tx, context: Context, execution: Execution) -> None:
    """Apply the timers of an execution at the context's time."""
    after = rules.time_out(execution, context.now)
    if after is execution:
        return
    with queue.changing(tx, context, execution.thing):
        end(tx, context, execution, after)
    settle(tx, context, after)


def forget_deleted(tx: Tx) -> None:
    """`store.before_commit` hook: things deleted in this transaction take their pending executions with them."""
    for name in sorted(tx.deleted):
        forget_thing(tx, Context.current(), name)


def forget_thing(tx: Tx, context: Context, thing: str) -> None:
    """A thing was deleted: its pending executions end REMOVED, without telling anyone (section 4.8)."""
    for execution in records.pending(tx, thing):
        after = rules.remove(execution, context.now)
        records.save(tx, execution, after)
        settle(tx, context, after)
    waiting = [row[0] for row in tx.all("SELECT DISTINCT job_id FROM job_waiting WHERE thing_name = ?", (thing,))]
    tx.execute("DELETE FROM job_waiting WHERE thing_name = ?", (thing,))
    for job_id in waiting:
        complete(tx, context, job_id)
