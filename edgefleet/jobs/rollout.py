# SPDX-License-Identifier: Apache-2.0
"""What time does to jobs: rollout by the minute, and time-outs. Called every second.

Source: aws-iot-protocol.md sections 3.8, 4.3, Appendix D.3.
"""

from __future__ import annotations

import sqlite3

from edgefleet.jobs import lifecycle, records, rules
from edgefleet.jobs.documents import Presign
from edgefleet.jobs.records import Context
from edgefleet.store import Tx

MINUTE = 60
# Executions released, or timed out, for one job in one transaction: a minute's thousand is spread over ten ticks, so
# that neither the event loop nor the queue of messages to send feels it.
BATCH = 100


def tick(tx: Tx, now: float, presign: Presign | None = None) -> None:
    """Do everything that is due at `now` (epoch seconds)."""
    context = Context(int(now), presign)
    for row in tx.all("SELECT * FROM job_executions WHERE deadline <= ? ORDER BY deadline LIMIT ?",
                      (context.now, BATCH)):  # fmt: skip
        execution = records.execution_of(row)
        # An abort caused by an earlier one of this batch may have changed it.
        current = records.find(tx, execution.job_id, execution.thing, execution.number)
        if current is not None:
            lifecycle.time_out(tx, context, current)
    rows = tx.all(
        "SELECT * FROM jobs WHERE status = 'IN_PROGRESS' AND EXISTS"
        " (SELECT 1 FROM job_waiting WHERE job_waiting.job_id = jobs.job_id)"
    )
    for row in rows:
        roll_out(tx, context, row)


def roll_out(tx: Tx, context: Context, row: sqlite3.Row) -> None:
    """Release as many waiting things of a job as its rate still allows in this minute, at most BATCH."""
    job_id = row["job_id"]
    succeeded = records.counts(tx, job_id).get(rules.SUCCEEDED, 0)
    rate = rules.rollout_rate(records.config(row, "rollout_config"), row["released"], succeeded)
    minute_at, used = row["minute_at"], row["minute_released"]
    if not minute_at <= context.now < minute_at + MINUTE:  # also when the clock was set back
        minute_at, used = context.now, 0
    released = lifecycle.release(tx, context, job_id, min(BATCH, max(0, rate - used)))
    if released:
        tx.execute(
            "UPDATE jobs SET released = released + ?, minute_at = ?, minute_released = ? WHERE job_id = ?",
            (released, minute_at, used + released, job_id),
        )
