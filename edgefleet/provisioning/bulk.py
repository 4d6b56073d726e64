# SPDX-License-Identifier: Apache-2.0
"""Bulk registration: a file of parameters, one JSON object a line, run through a template (section 6.6).

    tasks = BulkTasks(objects, authority, link)
    task_id = tasks.start(tx, template_body, bucket, key, role_arn)
    while site.commit(tasks.step): …

A step does some lines, remembers how far it came and commits all of it together, so after a kill -9 the next step goes
on exactly there. A bad line is one row of the error report; the others go on. Report files are written in parts of
`PART_LINES`: however long the input is, neither a step nor the table of unwritten rows grows with it.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Any, BinaryIO, TypedDict

from edgefleet import paging, payload
from edgefleet.artifacts.objects import Objects
from edgefleet.errors import ApiError, invalid, not_found
from edgefleet.messages import compact
from edgefleet.pki import Authority
from edgefleet.provisioning import language
from edgefleet.provisioning.apply import apply
from edgefleet.provisioning.expressions import Unresolved
from edgefleet.registry import listing
from edgefleet.store import Tx

FILE_BYTES = 512 * 1024 * 1024
LINE_BYTES = 64 * 1024
STEP_LINES = 500
# A step holds the event loop; lines with a certificate to sign take a millisecond each.
STEP_S = 0.25
PART_LINES = 10_000
REPORTS_BUCKET = "registration-reports"
RESULTS, ERRORS = "RESULTS", "ERRORS"
STATUSES = ("InProgress", "Completed", "Failed", "Cancelled", "Cancelling")
_DEPTH = 8
_SKIP_BYTES = 1 << 20
_PARTS = {RESULTS: "result_parts", ERRORS: "error_parts"}


Page = tuple[list[str], str | None]  # and the token of the next page


class Task(TypedDict):
    taskId: str
    templateBody: str
    inputFileBucket: str
    inputFileKey: str
    roleArn: str
    status: str
    message: str | None
    creationDate: float
    lastModifiedDate: float
    successCount: int
    failureCount: int
    percentageProgress: int


class BadLine(Exception):
    """One line cannot be registered; `str(e)` names the field."""


class BulkTasks:
    """link: makes a downloadable URL of (bucket, key), for ListThingRegistrationTaskReports."""

    def __init__(self, objects: Objects, authority: Authority, link: Callable[[str, str], str]) -> None:
        self._objects = objects
        self._authority = authority
        self._link = link

    def start(self, tx: Tx, template_body: str, bucket: str, key: str, role_arn: str) -> str:
        """Begin a task; returns its id.

        Raises InvalidRequestException: template, input file missing or over 512 MB, or another task not finished (one
        at a time, as on AWS).
        """
        language.parse(template_body, fleet=False)
        open_task = tx.value("SELECT task_id FROM registration_tasks WHERE status IN ('InProgress', 'Cancelling')")
        if open_task is not None:
            raise invalid(f"Registration task {open_task} is not finished; only one can run at a time")
        try:
            with self._objects.open(bucket, key) as file:
                stamp, size = _stamp(file)
        except ApiError as error:
            raise invalid(f"inputFileBucket, inputFileKey: {error.message}") from error
        if size > FILE_BYTES:
            raise invalid(f"inputFileKey: the file has {size} bytes, at most {FILE_BYTES} are allowed")
        task_id, now = str(uuid.uuid4()), time.time()
        tx.execute(
            "INSERT INTO registration_tasks (task_id, template_body, bucket, key, role_arn, status, created_at,"
            " modified_at, file_stamp, file_size) VALUES (?, ?, ?, ?, ?, 'InProgress', ?, ?, ?, ?)",
            (task_id, template_body, bucket, key, role_arn, now, now, stamp, size),
        )
        return task_id

    def describe(self, tx: Tx, task_id: str) -> Task:
        """Raises ResourceNotFoundException."""
        row = tx.one("SELECT * FROM registration_tasks WHERE task_id = ?", (task_id,))
        if row is None:
            raise not_found(f"Registration task {task_id[:40]} not found")
        done = row["status"] == "Completed" or not row["file_size"]
        return Task(
            taskId=row["task_id"],
            templateBody=row["template_body"],
            inputFileBucket=row["bucket"],
            inputFileKey=row["key"],
            roleArn=row["role_arn"],
            status=row["status"],
            message=row["message"],
            creationDate=row["created_at"],
            lastModifiedDate=row["modified_at"],
            successCount=row["successes"],
            failureCount=row["failures"],
            percentageProgress=100 if done else min(99, row["position"] * 100 // row["file_size"]),
        )

    def list(self, tx: Tx, status: str | None = None, token: str | None = None, size: int | None = None) -> Page:
        """A page of task ids, newest first."""
        limit = paging.limit(size, listing.MOST)
        before = paging.decode(token, int)
        rows = tx.all(
            "SELECT sequence, task_id FROM registration_tasks WHERE (?1 IS NULL OR status = ?1) AND"
            " (?2 IS NULL OR sequence < ?2) ORDER BY sequence DESC LIMIT ?3",
            (status, before[0] if before else None, limit + 1),
        )
        following = paging.encode(rows[limit - 1]["sequence"]) if len(rows) > limit else None
        return [row["task_id"] for row in rows[:limit]], following

    def stop(self, tx: Tx, task_id: str) -> None:
        """Ask a running task to end; lines already done stay done. Raises InvalidRequestException if it has ended."""
        status = self.describe(tx, task_id)["status"]
        if status not in ("InProgress", "Cancelling"):
            raise invalid(f"Registration task {task_id} is already {status}")
        self._set_status(tx, task_id, "Cancelling")

    def reports(self, tx: Tx, task_id: str, kind: str, token: str | None = None, size: int | None = None) -> Page:
        """A page of links to the report files written so far. kind: RESULTS or ERRORS."""
        self.describe(tx, task_id)
        if kind not in _PARTS:
            raise invalid(f"reportType: must be {RESULTS} or {ERRORS}")
        limit = paging.limit(size, listing.MOST)
        first = (paging.decode(token, int) or [0])[0] + 1
        row = tx.one("SELECT * FROM registration_tasks WHERE task_id = ?", (task_id,))
        last = 0 if row is None else row[_PARTS[kind]]
        parts = range(max(first, 1), min(last, first + limit - 1) + 1)
        links = [self._link(REPORTS_BUCKET, _report_key(task_id, kind, part)) for part in parts]
        return links, paging.encode(parts[-1]) if links and parts[-1] < last else None

    def step(self, tx: Tx) -> bool:
        """Do the next lines of the running task. Returns False if there is nothing to do."""
        row = tx.one(
            "SELECT * FROM registration_tasks WHERE status IN ('InProgress', 'Cancelling') ORDER BY sequence LIMIT 1"
        )
        if row is None:
            return False
        task_id = row["task_id"]
        if row["status"] == "Cancelling":
            self._finish(tx, task_id, "Cancelled")
            return True
        try:
            with self._objects.open(row["bucket"], row["key"]) as file:
                if _stamp(file) != (row["file_stamp"], row["file_size"]):
                    raise invalid(
                        f"the input file {row['bucket']}/{row['key']} was replaced while the task was running"
                    )
                ended = self._lines(tx, task_id, language.parse(row["template_body"], fleet=False), file, row)
        except ApiError as error:
            self._finish(tx, task_id, "Failed", error.message)
            return True
        for kind in _PARTS:
            self._write_parts(tx, task_id, kind, least=PART_LINES)
        if ended:
            self._finish(tx, task_id, "Completed")
        return True

    def _lines(self, tx: Tx, task_id: str, template: language.Template, file: BinaryIO, row: Any) -> bool:
        """Register lines from where the task stands. Returns whether the file has ended."""
        position, number = row["position"], row["lines"]
        counts = {RESULTS: 0, ERRORS: 0}
        reports: list[tuple[str, str, int, str]] = []
        file.seek(position)
        deadline = time.monotonic() + STEP_S
        ended = False
        for _ in range(STEP_LINES):
            line, length = _read_line(file)
            if length == 0:
                ended = True
                break
            number += 1
            if line is None or line.strip():
                report: dict[str, Any] = {"lineNumber": number, "offset": position}
                kind = RESULTS
                try:
                    report["response"] = self._register(tx, template, line, first=position == 0)
                except BadLine as error:
                    kind = ERRORS
                    report["errorMessage"] = str(error)
                counts[kind] += 1
                reports.append((task_id, kind, number, compact(report).decode()))
            position += length
            if time.monotonic() > deadline:
                break
        tx.executemany("INSERT INTO registration_reports VALUES (?, ?, ?, ?)", reports)
        tx.execute(
            "UPDATE registration_tasks SET position = ?, lines = ?, successes = successes + ?,"
            " failures = failures + ?, modified_at = ? WHERE task_id = ?",
            (position, number, counts[RESULTS], counts[ERRORS], time.time(), task_id),
        )
        return ended

    def _register(self, tx: Tx, template: language.Template, line: bytes | None, first: bool) -> dict[str, Any]:
        parameters = _parameters(line, first)
        try:
            wanted = template.evaluate(parameters)
            with tx.savepoint():
                applied = apply(tx, wanted, self._authority)
        except (Unresolved, ApiError) as error:
            raise BadLine(str(error)) from error
        response: dict[str, Any] = {"resourceArns": applied.arns}
        if applied.certificate_pem is not None:
            response["certificatePem"] = applied.certificate_pem
        return response

    def _write_parts(self, tx: Tx, task_id: str, kind: str, least: int) -> None:
        """Move report rows into files while at least `least` of them wait.

        The file is durable before the commit that forgets its rows; a crash in between writes the same file again.
        """
        column = _PARTS[kind]
        while True:
            rows = tx.all(
                "SELECT line, document FROM registration_reports WHERE task_id = ? AND kind = ? ORDER BY line LIMIT ?",
                (task_id, kind, PART_LINES),
            )
            if len(rows) < max(least, 1):
                return
            part = tx.value(f"SELECT {column} FROM registration_tasks WHERE task_id = ?", (task_id,)) + 1  # noqa: S608
            with self._objects.writing(REPORTS_BUCKET, _report_key(task_id, kind, part)) as file:
                file.writelines(row["document"].encode() + b"\n" for row in rows)
            tx.execute(
                "DELETE FROM registration_reports WHERE task_id = ? AND kind = ? AND line <= ?",
                (task_id, kind, rows[-1]["line"]),
            )
            tx.execute(f"UPDATE registration_tasks SET {column} = ? WHERE task_id = ?", (part, task_id))  # noqa: S608

    def _finish(self, tx: Tx, task_id: str, status: str, message: str | None = None) -> None:
        for kind in _PARTS:
            self._write_parts(tx, task_id, kind, least=1)
        self._set_status(tx, task_id, status, message)

    def _set_status(self, tx: Tx, task_id: str, status: str, message: str | None = None) -> None:
        tx.execute(
            "UPDATE registration_tasks SET status = ?, message = ?, modified_at = ? WHERE task_id = ?",
            (status, message, time.time(), task_id),
        )


def _read_line(file: BinaryIO) -> tuple[bytes | None, int]:
    """(line, its bytes with the line end); (None, bytes) for a line over the limit, which is skipped; (b"", 0) at the
    end of the file."""
    line = file.readline(LINE_BYTES + 1)
    length = len(line)
    if length <= LINE_BYTES or line.endswith(b"\n"):
        return line, length
    while line and not line.endswith(b"\n"):
        line = file.readline(_SKIP_BYTES)
        length += len(line)
    return None, length


def _parameters(line: bytes | None, first: bool) -> dict[str, str]:
    """The parameters on a line. Raises BadLine naming the field."""
    if line is None:
        raise BadLine(f"the line has more than {LINE_BYTES} bytes")
    if first:
        line = line.removeprefix(b"\xef\xbb\xbf")  # editors on Windows begin files with it
    try:
        parameters = payload.parse(line, _DEPTH)
    except ValueError as error:
        raise BadLine(str(error)) from None
    if not isinstance(parameters, dict):
        raise BadLine("the line must be a JSON object of parameters")
    for name, value in parameters.items():
        if not isinstance(value, str):
            raise BadLine(f"parameter '{name[:128]}': must be a string")
    return parameters


def _report_key(task_id: str, kind: str, part: int) -> str:
    return f"{task_id}/{kind}-{part:05}.json"


def _stamp(file: BinaryIO) -> tuple[str, int]:
    """(what changes when an object is replaced, size in bytes)."""
    status = os.fstat(file.fileno())
    return f"{status.st_ino}-{status.st_mtime_ns}", status.st_size
