# SPDX-License-Identifier: Apache-2.0
"""`edgefleet search QUERY`: ask the fleet index."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from edgefleet import client
from edgefleet.commands import output

_PAGE = 250  # things a SearchIndex answer may hold


def add_commands(subparsers: Any) -> None:
    parser = subparsers.add_parser("search", help="find devices, e.g. 'shadow.reported.firmware:1.*'")
    parser.add_argument("query", help="AWS IoT fleet indexing query")
    parser.add_argument("--limit", type=int, default=1000, help="at most so many (default %(default)s)")
    parser.set_defaults(run=_search)


def find(iot: Any, query: str, limit: int) -> list[dict[str, Any]]:
    """The first `limit` thing documents that match."""
    found: list[dict[str, Any]] = []
    arguments: dict[str, Any] = {"queryString": query}
    while len(found) < limit:
        page = iot.search_index(maxResults=min(_PAGE, limit - len(found)), **arguments)
        found += page.get("things", [])
        if not page.get("nextToken"):
            break
        arguments["nextToken"] = page["nextToken"]
    return found


def _search(args: argparse.Namespace) -> int:
    things = find(client.connect(args, "iot"), args.query, args.limit)
    if args.json:
        output.print_json(things)
        return 0
    output.print_table(
        ("thing", "type", "groups", "firmware", "connected"),
        (
            (
                thing["thingName"],
                thing.get("thingTypeName"),
                " ".join(thing.get("thingGroupNames", [])),
                _reported(thing).get("firmware"),
                _connection(thing.get("connectivity") or {}),
            )
            for thing in things
        ),
    )
    output.say(f"{len(things)} found" + (" (more may match; see --limit)" if len(things) >= args.limit else ""))
    return 0


def _reported(thing: dict[str, Any]) -> dict[str, Any]:
    try:
        reported = json.loads(thing.get("shadow") or "{}").get("reported")
    except ValueError:
        return {}
    return reported if isinstance(reported, dict) else {}


def _connection(connectivity: dict[str, Any]) -> str:
    if "connected" not in connectivity:
        return ""
    since = connectivity.get("timestamp")  # epoch milliseconds
    when = f" since {datetime.fromtimestamp(since / 1000, UTC):%Y-%m-%d %H:%M:%S}Z" if since else ""
    return ("yes" if connectivity["connected"] else "no") + when
