# SPDX-License-Identifier: Apache-2.0
"""`edgefleet job create | watch | show`."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgefleet import client
from edgefleet.artifacts.publish import ROLE
from edgefleet.commands import output
from edgefleet.errors import InputError
from edgefleet.jobs.documents import has_placeholder

_POLL_S = 0.5
_DOCUMENT_BYTES = 32 * 1024  # section 17: of a job document
_OPEN = ("QUEUED", "IN_PROGRESS")
_ORDER = ("QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "REMOVED", "CANCELED")
_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "REJECTED": "red", "TIMED_OUT": "red", "IN_PROGRESS": "cyan"}


def add_commands(subparsers: Any) -> None:
    top = subparsers.add_parser("job", help="run an operation on devices and follow it")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    create = commands.add_parser("create", help="create a job")
    create.add_argument("id")
    what = create.add_mutually_exclusive_group(required=True)
    what.add_argument("--operation", metavar="NAME", help="an operation of the device: reboot, diagnostics, …")
    what.add_argument("--document", type=Path, metavar="FILE", help="a whole job document (JSON)")
    create.add_argument("--target", action="append", required=True, metavar="thing/NAME|group/NAME|ARN",
                        help="may be repeated")  # fmt: skip
    create.add_argument("--description")
    create.add_argument("--continuous", action="store_true", help="also run on things that join the groups later")
    create.add_argument(
        "--timeout-minutes", type=int, metavar="N", help="give an execution up N minutes after its start"
    )
    create.add_argument("--role", default=ROLE, metavar="ARN", help="by which AWS presigns the document's URLs, if any")
    create.set_defaults(run=_create)

    watch = commands.add_parser("watch", help="follow a job until it is over")
    watch.add_argument("id")
    watch.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after so long (exit code 1)")
    watch.set_defaults(run=_watch)

    show = commands.add_parser("show", help="a job and the state of every execution")
    show.add_argument("id")
    show.set_defaults(run=_show)


def _create(args: argparse.Namespace) -> int:
    document = json.dumps({"operation": args.operation}) if args.operation else _read_document(args.document)
    iot = client.connect(args, "iot")
    arguments: dict[str, Any] = {
        "jobId": args.id,
        "targets": [target(iot, text) for text in dict.fromkeys(args.target)],
        "document": document,
    }
    if has_placeholder(document):
        arguments["presignedUrlConfig"] = {"roleArn": args.role, "expiresInSec": 3600}
    if args.description:
        arguments["description"] = args.description
    if args.continuous:
        arguments["targetSelection"] = "CONTINUOUS"
    if args.timeout_minutes is not None:
        arguments["timeoutConfig"] = {"inProgressTimeoutInMinutes": args.timeout_minutes}
    made = iot.create_job(**arguments)
    if args.json:
        output.print_json({"jobId": made["jobId"], "jobArn": made["jobArn"]})
    else:
        output.say(f"job {made['jobId']} created; follow it with: edgefleet job watch {made['jobId']}")
    return 0


def _read_document(path: Path) -> str:
    """The text of a job document, as it stands."""
    try:
        if path.stat().st_size > _DOCUMENT_BYTES:
            raise InputError(f"{path}: a job document has at most {_DOCUMENT_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: {error}") from None
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: a job document is a JSON object")
    return text


def target(iot: Any, text: str) -> str:
    """The ARN of `thing/NAME` or `group/NAME`, asked of the service: region and account are its business."""
    if text.startswith("arn:"):
        return text
    kind, _, name = text.partition("/")
    if kind == "thing" and name:
        return str(iot.describe_thing(thingName=name)["thingArn"])
    if kind == "group" and name:
        return str(iot.describe_thing_group(thingGroupName=name)["thingGroupArn"])
    raise InputError(f"--target {text}: must be thing/NAME, group/NAME or an ARN")


def executions(iot: Any, job: str) -> list[dict[str, Any]]:
    """`{thing, status, executionNumber, lastUpdatedAt, …}` of every execution of a job."""
    pages = iot.get_paginator("list_job_executions_for_job").paginate(jobId=job)
    return [
        {"thing": entry["thingArn"].rsplit("/", 1)[1], **entry["jobExecutionSummary"]}
        for page in pages
        for entry in page["executionSummaries"]
    ]


def _over(job: dict[str, Any], found: list[dict[str, Any]]) -> bool:
    """A continuous job is over when all devices it has by now are done."""
    if job["status"] in ("COMPLETED", "CANCELED", "DELETION_IN_PROGRESS"):
        return not any(execution["status"] in _OPEN for execution in found)
    continuous = job.get("targetSelection") == "CONTINUOUS"
    return continuous and bool(found) and not any(execution["status"] in _OPEN for execution in found)


def _watch(args: argparse.Namespace) -> int:
    iot = client.connect(args, "iot")
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    last: Counter[str] | None = None
    with Live(console=output.console, auto_refresh=False, transient=False) as live:
        while True:
            job = iot.describe_job(jobId=args.id)["job"]
            found = executions(iot, args.id)
            counts = Counter(execution["status"] for execution in found)
            if args.json and counts != last:
                output.print_json_line({"jobId": args.id, "status": job["status"], "executions": dict(counts)})
            elif not args.json:
                live.update(_progress(args.id, job["status"], counts), refresh=True)
            last = counts
            if _over(job, found):
                break
            if deadline is not None and time.monotonic() > deadline:
                output.complain(f"job {args.id} is not over after {args.timeout:g} s: {_words(counts)}")
                return 1
            time.sleep(_POLL_S)
    bad = [execution for execution in found if execution["status"] not in ("SUCCEEDED", "REMOVED")]
    if not args.json:
        if not output.console.is_terminal:
            output.console.line()  # Live ends its last line only on a terminal
        for execution in bad[:20]:
            output.say(
                f"  {execution['thing']}: {execution['status']} {reason(iot, args.id, execution['thing'])}", "red"
            )
    return 1 if bad or job["status"] == "CANCELED" else 0


def _progress(job: str, status: str, counts: Counter[str]) -> Table:
    table = Table.grid(padding=(0, 2))
    total = sum(counts.values())
    done = sum(number for name, number in counts.items() if name not in _OPEN)
    cells = [Text(f"{name} {counts[name]}", style=_STYLES.get(name, "")) for name in _ORDER if counts[name]]
    width = 30
    filled = width * done // total if total else 0
    table.add_row(Text(job, style="bold"), Text(status), Text("█" * filled + "░" * (width - filled)),
                  Text(f"{done}/{total}"), *cells)  # fmt: skip
    return table


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in _ORDER if counts[name]) or "no executions"


def reason(iot: Any, job: str, thing: str) -> str:
    execution = iot.describe_job_execution(jobId=job, thingName=thing)["execution"]
    details: dict[str, str] = execution.get("statusDetails", {}).get("detailsMap", {})
    return details.get("reason") or " ".join(f"{name}={value}" for name, value in sorted(details.items()))


def _show(args: argparse.Namespace) -> int:
    iot = client.connect(args, "iot")
    job = iot.describe_job(jobId=args.id)["job"]
    found = executions(iot, args.id)
    if args.json:
        document = iot.get_job_document(jobId=args.id).get("document")
        output.print_json({**job, "document": document, "executions": found})
        return 0
    counts = Counter(execution["status"] for execution in found)
    output.say(f"{args.id}: {job['status']}, {_words(counts)}")
    output.print_table(
        ("thing", "status", "attempt", "last change"),
        ((e["thing"], e["status"], e.get("executionNumber"), e.get("lastUpdatedAt")) for e in found),
    )
    return 0
