# SPDX-License-Identifier: Apache-2.0
"""`edgefleet things register FILE --template FILE`: a factory's file into a bulk registration task, and its outcome.

The file is turned into the service's input, one JSON object a line, uploaded with S3, and registered by
StartThingRegistrationTask (aws-iot-protocol.md section 6.6). A line that cannot be read is uploaded as a JSON array:
the service counts it as failed under its number, and the reason found here is shown. So nothing is lost in silence.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgefleet import client
from edgefleet.commands import output
from edgefleet.errors import FleetError, InputError

BUCKET = "edgefleet-bulk"
ROLE = "arn:aws:iam::000000000000:role/edgefleet-bulk"  # on AWS a role that reads the bucket; edgefleet needs none
TEMPLATE_CHARACTERS = 10240
LINE_BYTES = 64 * 1024
FILE_BYTES = 60 * 1024 * 1024  # of the converted input; below the S3 front's cap
_POLL_S = 0.3
_PATIENCE_S = 60  # how long a server that is gone may stay gone
_SHOWN = 100  # failed lines printed; --json has all


@dataclass
class Input:
    """A converted file. lines: source line of each line uploaded. problems: by source line, found before the upload."""

    file: IO[bytes]
    lines: list[int] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    key: str = ""
    unused: tuple[str, ...] = ()  # columns that the template has no parameter for


def decode(data: bytes) -> Any:
    """JSON of the service. Raises FleetError."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise FleetError(f"the service answered what is not JSON: {error}") from None


def run(args: argparse.Namespace) -> int:
    template = _template(args.template)
    with tempfile.TemporaryFile() as file:
        source = convert(args.file, template, file)
        for name in source.unused:
            output.complain(f"{args.file}: column '{name}' is not a parameter of the template and is not used")
        iot, s3 = client.connect(args, "iot"), client.connect(args, "s3")
        s3.put_object(Bucket=args.bucket, Key=source.key, Body=file)
        started = time.monotonic()
        task_id = iot.start_thing_registration_task(
            templateBody=json.dumps(template),
            inputFileBucket=args.bucket,
            inputFileKey=source.key,
            roleArn=args.role_arn,
        )["taskId"]
        task = _follow(iot, task_id, len(source.lines), quiet=args.json)
        elapsed = time.monotonic() - started
    errors = _errors(args, iot, task_id, source)
    return _report(args, task_id, task, errors, elapsed)


def _template(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > TEMPLATE_CHARACTERS:
            raise InputError(f"{path}: a template has at most {TEMPLATE_CHARACTERS} characters")
        template = json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(template, dict) or not isinstance(template.get("Parameters", {}), dict):
        raise InputError(f"{path}: a provisioning template is an object with Parameters and Resources")
    return template


def convert(path: Path, template: dict[str, Any], target: IO[bytes]) -> Input:
    """Write the service's input into `target` and rewind it. Raises InputError if nothing in the file is usable."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".ndjson", ".jsonl"):
        raise InputError(f"{path}: must be .csv, .ndjson or .jsonl")
    parameters: dict[str, Any] = template.get("Parameters", {})
    result = Input(target)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as source:
            lines = _lines(source)
            rows = _csv_rows(path, lines, parameters, result) if kind == ".csv" else _json_rows(lines)
            for number, row, problem in rows:
                if problem:
                    result.problems[number] = problem
                line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
                result.lines.append(number)
                digest.update(line)
                target.write(line)
                if target.tell() > FILE_BYTES:
                    raise InputError(f"{path}: line {number}: the input exceeds {FILE_BYTES} bytes; split the file")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if len(result.lines) == len(result.problems):
        first = min(result.problems.items(), default=None)
        raise InputError(f"{path}: no line can be registered" + (f"; line {first[0]}: {first[1]}" if first else ""))
    target.seek(0)
    result.key = f"{path.stem[:60]}-{digest.hexdigest()[:16]}.ndjson"
    return result


def _lines(source: IO[bytes]) -> Iterator[tuple[int, str, str | None]]:
    """(line number, text, problem) of every line that is not empty."""
    number = 0
    while raw := source.readline(LINE_BYTES + 1):
        number += 1
        problem = None
        if len(raw) > LINE_BYTES:
            problem = f"has more than {LINE_BYTES} bytes"
            raw = raw[:200]
            while (rest := source.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            text = raw.decode("utf-8", "replace")
            problem = problem or "is not UTF-8"
        text = text.rstrip("\r\n")
        if text.strip() or problem:
            yield number, text, problem


Rows = Iterator[tuple[int, dict[str, str] | list[str], str | None]]  # (source line, what to upload, problem)


def _csv_rows(
    path: Path, lines: Iterator[tuple[int, str, str | None]], parameters: dict[str, Any], result: Input
) -> Rows:
    """Each line is a record of its own, so that a stray quote spoils one device, not all that follow."""
    number, header_text, problem = next(lines, (1, "", "the header line is missing"))
    cells, parse_problem = _cells(header_text)
    header = [cell.strip() for cell in cells]
    problem = problem or parse_problem
    if problem is None and (not all(header) or len(set(header)) != len(header)):
        problem = "the header line has an empty or a repeated column name"
    if problem is None:
        missing = [
            name
            for name, declared in parameters.items()
            if name not in header and not (isinstance(declared, dict) and "Default" in declared) and "::" not in name
        ]
        if missing:
            problem = f"the template needs column{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    if problem is not None:
        raise InputError(f"{path}: line {number}: {problem}")
    result.unused = tuple(name for name in header if parameters and name not in parameters)
    for number, text, found in lines:
        cells, parse_problem = _cells(text)
        trouble = found or parse_problem
        if trouble is None and len(cells) != len(header):
            trouble = f"has {len(cells)} columns, the header has {len(header)}"
        if trouble is not None:
            yield number, [text[:200]], trouble
        else:
            yield number, dict(zip(header, (cell.strip() for cell in cells), strict=True)), None


def _cells(text: str) -> tuple[list[str], str | None]:
    try:
        return next(csv.reader([text], strict=True), []), None
    except csv.Error as error:
        return [], f"is not CSV: {error}"


def _json_rows(lines: Iterator[tuple[int, str, str | None]]) -> Rows:
    for number, text, problem in lines:
        row: Any = None
        if problem is None:
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                problem = "is not JSON"
        if problem is None and not isinstance(row, dict):
            problem = "is not a JSON object"
        if problem is None:
            wrong = [name for name, value in row.items() if not isinstance(value, str)]
            problem = f"the value of {wrong[0]} must be text" if wrong else None
        yield number, (row if problem is None else [text[:200]]), problem


def _follow(iot: Any, task_id: str, total: int, *, quiet: bool) -> dict[str, Any]:
    """Show progress until the task is over; a server that restarts meanwhile is waited for."""
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError

    columns = (
        TextColumn("registering"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=output.console, disable=quiet) as progress:
        bar = progress.add_task("", total=total, failed="")
        lost: float | None = None
        while True:
            try:
                task: dict[str, Any] = iot.describe_thing_registration_task(taskId=task_id)
            except (NoConnection, HTTPClientError) as error:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > _PATIENCE_S:
                    raise FleetError(f"lost the connection; the task {task_id} goes on without us: {error}") from None
                time.sleep(1)
                continue
            lost = None
            failed = task.get("failureCount", 0)
            progress.update(
                bar,
                completed=min(total, task.get("successCount", 0) + failed),
                failed=f"{failed} failed" if failed else "",
            )
            if task["status"] not in ("InProgress", "Cancelling"):
                return task
            time.sleep(_POLL_S)


def _errors(args: argparse.Namespace, iot: Any, task_id: str, source: Input) -> list[tuple[int, str]]:
    """(source line, reason) of every failed line, from the service's report and from what was found here."""
    reasons = dict(source.problems)
    arguments: dict[str, Any] = {"taskId": task_id, "reportType": "ERRORS"}
    while True:
        page = iot.list_thing_registration_task_reports(**arguments)
        for link in page.get("resourceLinks", []):
            for raw in client.download(args, link).splitlines():
                entry = decode(raw)
                number = entry.get("lineNumber", 0)
                if 1 <= number <= len(source.lines):
                    reasons.setdefault(source.lines[number - 1], _message(entry))
        if not page.get("nextToken"):
            return sorted(reasons.items())
        arguments["nextToken"] = page["nextToken"]


def _message(entry: dict[str, Any]) -> str:
    """The reason in an error line; its spelling is not documented, so several are understood."""
    response = entry.get("response")
    inner = response if isinstance(response, dict) else {}
    for value in (entry.get("errorMessage"), inner.get("errorMessage"), inner.get("message"), response):
        if isinstance(value, str) and value:
            return value
    return "failed without a reason"


def _report(
    args: argparse.Namespace, task_id: str, task: dict[str, Any], errors: list[tuple[int, str]], elapsed: float
) -> int:
    good, bad = task.get("successCount", 0), task.get("failureCount", 0)
    if args.json:
        output.print_json(
            {
                "taskId": task_id,
                "status": task["status"],
                "successCount": good,
                "failureCount": bad,
                "seconds": round(elapsed, 3),
                "errors": [{"line": line, "message": message} for line, message in errors],
            }
        )
    else:
        for line, message in errors[:_SHOWN]:
            output.say(f"  {args.file.name}:{line}: {message}", "red")
        if len(errors) > _SHOWN:
            output.say(f"  … and {len(errors) - _SHOWN} more; --json shows all", "red")
        rate = f", {good / elapsed:.0f} a second" if elapsed > 0.5 and good else ""
        output.say(f"{good} registered, {bad} failed in {elapsed:.1f} s{rate}")
    if task["status"] != "Completed":
        output.complain(f"the task {task_id} is {task['status']}: {task.get('message') or 'no reason given'}")
    if bad or errors:
        return 2
    return 0 if task["status"] == "Completed" else 1
