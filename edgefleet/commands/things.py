# SPDX-License-Identifier: Apache-2.0
"""`edgefleet things list | show | register`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgefleet import client
from edgefleet.commands import output, register


def add_commands(subparsers: Any) -> None:
    top = subparsers.add_parser("things", help="list, show and register devices")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="list registered things")
    listing.add_argument("--type", metavar="NAME", help="only of this thing type")
    listing.add_argument("--limit", type=int, default=1000, help="at most so many (default %(default)s)")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="everything known of a thing")
    show.add_argument("name")
    show.set_defaults(run=_show)

    bulk = commands.add_parser("register", help="register many things from a CSV or NDJSON file")
    bulk.add_argument("file", type=Path, help=".csv with a header line, or .ndjson/.jsonl: parameters of the template")
    bulk.add_argument("--template", type=Path, required=True, metavar="FILE", help="provisioning template (JSON)")
    bulk.add_argument("--bucket", default=register.BUCKET, help="S3 bucket for the input (default %(default)s)")
    bulk.add_argument("--role-arn", default=register.ROLE, help="role by which AWS reads the bucket")
    bulk.set_defaults(run=register.run)


def _list(args: argparse.Namespace) -> int:
    iot = client.connect(args, "iot")
    filters = {"thingTypeName": args.type} if args.type else {}
    pages = iot.get_paginator("list_things").paginate(
        PaginationConfig={"MaxItems": args.limit, "PageSize": min(250, max(1, args.limit))}, **filters
    )
    things = [thing for page in pages for thing in page["things"]]
    if args.json:
        output.print_json(things)
    else:
        output.print_table(
            ("thing", "type", "attributes"),
            ((t["thingName"], t.get("thingTypeName"), _pairs(t.get("attributes", {}))) for t in things),
        )
    return 0


def _pairs(attributes: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(attributes.items()))


def _show(args: argparse.Namespace) -> int:
    iot = client.connect(args, "iot")
    data = client.connect(args, "iot-data")
    thing = iot.describe_thing(thingName=args.name)
    thing.pop("ResponseMetadata", None)
    thing["principals"] = iot.list_thing_principals(thingName=args.name)["principals"]
    thing["thingGroups"] = [
        group["groupName"] for group in iot.list_thing_groups_for_thing(thingName=args.name)["thingGroups"]
    ]
    try:
        thing["shadow"] = register.decode(data.get_thing_shadow(thingName=args.name)["payload"].read())
    except data.exceptions.ResourceNotFoundException:
        thing["shadow"] = None
    if args.json:
        output.print_json(thing)
        return 0
    reported = ((thing["shadow"] or {}).get("state") or {}).get("reported") or {}
    output.print_table(
        ("", thing["thingName"]),
        [
            ("type", thing.get("thingTypeName")),
            ("attributes", _pairs(thing.get("attributes", {}))),
            ("groups", " ".join(thing["thingGroups"])),
            ("certificates", "\n".join(thing["principals"])),
            *((f"reported {name}", value) for name, value in sorted(reported.items())),
        ],
    )
    return 0
