# SPDX-License-Identifier: Apache-2.0
"""The Jobs service of a schedule: the rules of edgefleet themselves, over SQLite in memory, for one thing.

What the operator and time do is recorded beside it, so that the oracle can tell why an execution is what it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edgefleet import names
from edgefleet.errors import ApiError
from edgefleet.jobs import creation, device_plane, lifecycle, queue, records, rollout
from edgefleet.jobs.records import Context
from edgefleet.jobs.rules import TERMINAL, JobError
from edgefleet.messages import Message, Request
from edgefleet.registry import things
from edgefleet.store import Store
from tests.model.virtual import Time, Violation

THING = "t1"
EPOCH = 1_700_000_000
_store: Store | None = None  # one a process: its schema takes longer than a schedule


def _fresh_store() -> Store:
    global _store
    if _store is None:
        _store = Store(":memory:")
        with _store.transaction() as tx:
            things.create(tx, THING)
    with _store.transaction() as tx:
        for table in ("job_executions", "job_waiting", "job_counts", "jobs"):
            tx.execute(f"DELETE FROM {table}")
    return _store


@dataclass
class Record:
    """One execution. serial: of the CreateJob call, since an id may be used again. history: (when, status, cause)."""

    job_id: str
    number: int
    serial: int
    operation: str
    history: list[tuple[float, str, str]] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)
    deleted: float | None = None

    @property
    def status(self) -> str:
        return self.history[-1][1]

    @property
    def over(self) -> bool:
        return self.deleted is not None or self.status in TERMINAL


class Service:
    def __init__(self, time: Time, late: Callable[[], float]) -> None:
        """late: seconds by which the next time-out is applied late (section 3.8: up to 60)."""
        self._time = time
        self._late = late
        self._store = _fresh_store()
        self.records: dict[int, Record] = {}  # by sequence
        self.serials: dict[str, tuple[int, str]] = {}  # job id -> (serial, operation) of its latest creation
        self.refusals: list[str] = []  # codes that the next requests get
        self.notify: Callable[[Message], None] = lambda message: None
        self._due: int | None = None

    @property
    def _now(self) -> int:
        return EPOCH + int(self._time.now)

    def _do(self, work: Any, cause: str) -> list[Message]:
        """One transaction; returns the answer to the requester, hands the notifications on."""
        with self._store.transaction() as tx:
            work(tx, Context(self._now))
            self._compare(tx, cause)
            due = tx.value("SELECT min(deadline) FROM job_executions")
        if due is not None and due != self._due:
            self._due = due
            self._time.after(max(0, due - EPOCH - self._time.now) + self._late(), self._tick)
        sent = [message for message in tx.outgoing if isinstance(message, Message)]
        for message in sent:
            if not message.to_requester:
                self.notify(message)
        return [message for message in sent if message.to_requester]

    def _tick(self) -> None:
        self._due = None
        self._do(lambda tx, context: rollout.tick(tx, context.now), "time")

    def _compare(self, tx: Any, cause: str) -> None:
        now = self._time.now
        seen = set()
        for row in tx.all("SELECT * FROM job_executions ORDER BY sequence"):
            seen.add(row["sequence"])
            record = self.records.get(row["sequence"])
            if record is None:
                serial, operation = self.serials[row["job_id"]]
                record = self.records[row["sequence"]] = Record(row["job_id"], row["number"], serial, operation)
            elif record.status == row["status"]:
                continue
            elif record.status in TERMINAL:
                raise Violation(f"{record.job_id}/{record.number} went from {record.status} to {row['status']}")
            record.history.append((now, row["status"], cause))
            record.details = json.loads(row["details"] or "{}")
        for sequence, record in self.records.items():
            if sequence not in seen and record.deleted is None:
                record.deleted = now

    # --- the device

    def request(self, topic: str, payload: bytes) -> Message:
        """The answer to a request of the device."""
        request = Request(topic, payload, THING, "certificate")
        if self.refusals:
            code = self.refusals.pop(0)
            body = {"code": code, "message": "planned", "clientToken": json.loads(payload).get("clientToken")}
            return Message(topic + "/rejected", json.dumps(body).encode())
        (reply,) = self._do(lambda tx, context: device_plane.handle(tx, request, context), "device")
        return reply

    # --- the operator

    def create(self, job_id: str, serial: int, operation: str, document: dict[str, Any],
               minutes: int | None = None, retries: int = 0) -> None:  # fmt: skip
        """CreateJob for the thing. operation: its name in the ledger. minutes: inProgressTimeoutInMinutes."""
        document = {**document, "n": serial}
        members: dict[str, Any] = dict.fromkeys(
            ("document_source", "description", "presigned_config", "abort_config", "rollout_config")
        )
        members["timeout_config"] = {"inProgressTimeoutInMinutes": minutes} if minutes else None
        members["retry_config"] = (
            {"criteriaList": [{"failureType": "ALL", "numberOfRetries": retries}]} if retries else None
        )
        arn = names.arn(f"thing/{THING}")

        def work(tx: Any, context: Context) -> None:
            creation.create(tx, context, job_id, targets=[arn], document=json.dumps(document),
                            target_selection="SNAPSHOT", **members)  # fmt: skip

        before = self.serials.get(job_id)
        self.serials[job_id] = serial, operation
        try:
            self._do(work, "operator")
        except ApiError:  # the id is in use
            if before:
                self.serials[job_id] = before

    def operate(self, action: str, job_id: str, force: bool) -> None:
        """`cancel`, `delete`, `cancel-execution`, `delete-execution` or `rejoin`; what is refused changes nothing."""

        def work(tx: Any, context: Context) -> None:
            if action == "cancel":
                lifecycle.cancel(tx, context, job_id, force=force)
            elif action == "delete":
                lifecycle.delete(tx, context, job_id, force=force)
            else:
                execution = records.find(tx, job_id, THING)
                if execution is None:
                    return
                if action == "cancel-execution":
                    lifecycle.cancel_execution(tx, context, execution, force, None)
                elif action == "delete-execution":
                    lifecycle.delete_execution(tx, context, execution, force)
                elif execution.status in TERMINAL:  # the thing left the target of a CONTINUOUS job and is back
                    with queue.changing(tx, context, THING):
                        records.create(tx, job_id, THING, context.now)

        with suppress(ApiError, JobError):
            self._do(work, "operator")

    @property
    def pending(self) -> list[Record]:
        return [record for record in self.records.values() if not record.over]
