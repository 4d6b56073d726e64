# SPDX-License-Identifier: Apache-2.0
"""`edgefleet diagnostics request | show`: ask a device for a bundle; fetch it, prove it whole, and print it.

What a bundle is: edgeagent/jobs/diagnostics.py; its parts and its tree hash: edgeagent/upload.py. The hash of what
was fetched is computed by botocore's own implementation and held against what the device reported for the job.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from edgefleet import client
from edgefleet.artifacts.uploads import BUCKET
from edgefleet.commands import jobs, output
from edgefleet.errors import FleetError, InputError

PART_BYTES = 1 << 20
_PARTS = 1024  # a device may report at most so many
_DOCUMENT_BYTES = 8192  # what boards take of a job document
_POLL_S = 0.5
_VALUE_CHARS = 2000  # of one value in the table
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,80}")


def add_commands(subparsers: Any) -> None:
    top = subparsers.add_parser("diagnostics", help="get diagnostics bundles from devices")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    request = commands.add_parser("request", help="create a job that makes devices send their bundles")
    request.add_argument("id", help="of the job")
    request.add_argument("--target", action="append", required=True, metavar="thing/NAME|group/NAME|ARN",
                         help="may be repeated")  # fmt: skip
    request.add_argument("--section", action="append", metavar="NAME", help="only this one (may be repeated)")
    request.add_argument("--limit", type=int, metavar="BYTES", help=f"of a bundle (default {PART_BYTES})")
    request.add_argument("--https", action="store_true", help="upload to presigned URLs, not over MQTT (one thing)")
    request.add_argument("--bucket", default=BUCKET, help="of those URLs (default %(default)s)")
    request.add_argument("--expires", type=int, default=86400, metavar="SECONDS", help="life of those URLs (a day)")
    request.set_defaults(run=_request)

    show = commands.add_parser("show", help="fetch the bundle of a job and print it")
    show.add_argument("id", help="of the job")
    show.add_argument("--thing", help="whose bundle, if the job went to several")
    show.add_argument("--output", type=Path, metavar="FILE", help="store the bundle (JSON lines), do not print it")
    show.add_argument("--bucket", default=BUCKET, help="where uploads end up (default %(default)s)")
    show.add_argument("--timeout", type=float, default=0, metavar="SECONDS", help="wait so long for it (default 0)")
    show.set_defaults(run=_show)


def object_key(thing: str, bundle: str, part: int) -> str:
    """Where a part of a bundle is in the bucket (part 0 has no number)."""
    return f"uploads/{thing}/{bundle}" + (f".{part}" if part else "")


def _request(args: argparse.Namespace) -> int:
    document: dict[str, Any] = {"operation": "diagnostics"}
    if args.section:
        document["sections"] = args.section
    if args.limit is not None:
        document["limit"] = args.limit
    iot = client.connect(args, "iot")
    targets = [jobs.target(iot, target) for target in dict.fromkeys(args.target)]
    if args.https:
        if len(targets) != 1 or ":thing/" not in targets[0]:
            raise InputError("--https: needs exactly one target that is a thing, since a URL is for one object")
        thing = targets[0].partition(":thing/")[2]
        s3 = client.connect(args, "s3")
        document["urls"] = [
            s3.generate_presigned_url(
                "put_object", {"Bucket": args.bucket, "Key": object_key(thing, args.id, part)}, ExpiresIn=args.expires
            )
            for part in range(-(-(args.limit or PART_BYTES) // PART_BYTES))
        ]
    text = json.dumps(document)
    if len(text) > _DOCUMENT_BYTES:
        raise InputError(f"--limit: the URLs for so many parts make a document of more than {_DOCUMENT_BYTES} bytes")
    made = iot.create_job(jobId=args.id, targets=targets, document=text)
    if args.json:
        output.print_json({"jobId": made["jobId"], "jobArn": made["jobArn"]})
    else:
        output.say(f"job {args.id} created; see the bundle with: edgefleet diagnostics show {args.id} --timeout 60")
    return 0


def _show(args: argparse.Namespace) -> int:
    iot = client.connect(args, "iot")
    thing, details = _finished(iot, args)
    s3 = client.connect(args, "s3")
    with tempfile.TemporaryFile() as file:
        facts = fetch(s3, args.bucket, thing, details, file)
        file.seek(0)
        if args.output is not None:
            with args.output.open("wb") as out:
                for block in iter(lambda: file.read(PART_BYTES), b""):
                    out.write(block)
        if args.json:
            shown = {} if args.output else {"lines": list(lines(file))}
            output.print_json({"jobId": args.id, "thing": thing, **facts, **shown})
            return 0
        sizes = f"{facts['bytes']} bytes in {facts['parts']} part(s), tree hash {facts['sha256'][:16]}… verified"
        output.say(f"{args.id} of {thing}: {sizes}")
        if args.output is None:
            output.print_table(("section", "value"), (_row(line) for line in lines(file)))
    return 0


def _finished(iot: Any, args: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """(thing, statusDetails) of the execution that succeeded. Raises FleetError saying what became of it instead."""
    deadline = time.monotonic() + args.timeout
    while True:
        found = [entry for entry in jobs.executions(iot, args.id) if args.thing in (None, entry["thing"])]
        names = sorted({entry["thing"] for entry in found})
        if len(names) > 1:
            raise InputError(f"--thing: job {args.id} went to several: {', '.join(names[:10])}")
        if found:
            latest = max(found, key=lambda entry: entry.get("executionNumber", 0))
            status = latest["status"]
        else:
            latest, status = {}, "not there yet"
        if status == "SUCCEEDED":
            execution = iot.describe_job_execution(jobId=args.id, thingName=names[0])["execution"]
            return names[0], execution.get("statusDetails", {}).get("detailsMap", {})
        if status not in ("QUEUED", "IN_PROGRESS", "not there yet"):
            reason = jobs.reason(iot, args.id, names[0])
            raise FleetError(f"job {args.id} of {names[0]}: {status} {reason}")
        if time.monotonic() >= deadline:
            raise FleetError(f"job {args.id} of {args.thing or (names or ['its target'])[0]} is {status}")
        time.sleep(_POLL_S)


def fetch(s3: Any, bucket: str, thing: str, details: dict[str, str], file: IO[bytes]) -> dict[str, Any]:
    """Write the bundle that the statusDetails of a job tell of into `file`; {bundle, bytes, parts, sha256}.

    Raises FleetError if the details are no bundle's, or what is stored is not what the device sent.
    """
    from botocore.exceptions import ClientError
    from botocore.utils import calculate_tree_hash

    if details.get("skipped"):
        raise FleetError(f"there is no bundle: the device skipped the job: {details.get('reason', '')}")
    bundle, digest = details.get("bundle", ""), details.get("sha256", "")
    numbers = [details.get(name, "") for name in ("bytes", "parts")]
    if not _NAME.fullmatch(bundle) or not all(re.fullmatch("[0-9]{1,12}", number) for number in numbers):
        raise FleetError("the details of this job are not those of a diagnostics bundle")
    size, parts = map(int, numbers)
    if not 1 <= parts <= _PARTS or size > parts * PART_BYTES:
        raise FleetError(f"the device reported {parts} parts and {size} bytes, which no bundle has")
    for part in range(parts):
        key = object_key(thing, bundle, part)
        try:
            body = s3.get_object(Bucket=bucket, Key=key)["Body"]
            while block := body.read(65536):
                file.write(block)
                if file.tell() > (part + 1) * PART_BYTES:
                    raise FleetError(f"{key}: is larger than a part")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchKey":
                raise
            raise FleetError(f"{key}: is not in bucket {bucket} (part {part + 1} of {parts})") from None
    found = file.tell()
    file.seek(0)
    if found != size or calculate_tree_hash(cast(Any, file)) != digest:
        raise FleetError(f"the bundle of {thing} is damaged: not the bytes that the device reported for this job")
    return {"bundle": bundle, "bytes": size, "parts": parts, "sha256": digest}


def lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The lines of a bundle; what a reset made unreadable becomes {"section": "?", "?": text}."""
    for raw in file:
        text = raw.decode("utf-8", "replace").rstrip("\n")
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        yield line if isinstance(line, dict) and isinstance(line.get("section"), str) else {"section": "?", "?": text}


def _row(line: dict[str, Any]) -> tuple[str, str]:
    section = line["section"]
    rest = {name: value for name, value in line.items() if name != "section"}
    value: Any = rest.get(section) if section in rest else rest
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return section, text[:_VALUE_CHARS]
