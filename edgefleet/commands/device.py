# SPDX-License-Identifier: Apache-2.0
"""`edgefleet device prepare`: the files of a device that is about to onboard by claim."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edgefleet import client
from edgefleet.commands import output
from edgefleet.errors import InputError

HOST_BOARD = "linux"
_TRUST_BYTES = 4096


def add_commands(subparsers: Any) -> None:
    top = subparsers.add_parser("device", help="prepare devices for onboarding")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    prepare = commands.add_parser("prepare", help="lay out a device's files in a folder")
    prepare.add_argument("folder", type=Path, help="is made; holds the claim's private key afterwards")
    prepare.add_argument("--serial", required=True, help="serial number; becomes the thing's name")
    prepare.add_argument("--board", required=True, help=f"MicroPython board name, or `{HOST_BOARD}` for CPython")
    prepare.add_argument("--application", type=Path, metavar="DIR", help="artifact to install as first application")
    prepare.add_argument("--trust", type=Path, metavar="FILE", help="trust file: which keys may sign its updates")
    prepare.add_argument("--attribute", action="append", default=[], metavar="NAME=VALUE", help="a fact to report")
    aws = prepare.add_argument_group("without a site on this machine (AWS IoT Core)")
    aws.add_argument("--endpoint", help="MQTT host name")
    aws.add_argument("--port", type=int, help="MQTT port")
    aws.add_argument("--ca", type=Path)
    aws.add_argument("--claim-certificate", type=Path)
    aws.add_argument("--claim-key", type=Path)
    aws.add_argument("--template", help="name of the provisioning template")
    prepare.set_defaults(run=_prepare)
    agent = commands.add_parser("agent", help="write the agent for a board, as mpremote installs it")
    agent.add_argument("folder", type=Path, help="gets package.json, the .mpy files and, in source/, what was compiled")
    agent.add_argument("--board", default="", help="MicroPython board name: only its port; default: runs on all")
    agent.add_argument("--line-numbers", action="store_true", help="tracebacks name lines (those of source/)")
    agent.set_defaults(run=_agent)


def _agent(args: argparse.Namespace) -> int:
    from edgefleet import devices

    devices.write_agent(args.folder, args.board, 2 if args.line_numbers else devices.OPTIMISE)
    step = f"mpremote mip install {args.folder}/package.json"
    if args.json:
        output.print_json({"folder": str(args.folder), "next": [step]})
    else:
        output.say(f"{args.folder} is ready. Next:\n  {step}")
    return 0


def _prepare(args: argparse.Namespace) -> int:
    from edgefleet import devices

    given = {
        "endpoint": args.endpoint,
        "mqtt_port": args.port,
        "ca": args.ca,
        "claim_certificate": args.claim_certificate,
        "claim_key": args.claim_key,
        "template": args.template,
    }
    facts = {name: value for name, value in given.items() if value is not None}
    if len(facts) < len(given):
        facts = client.site_facts(args) | facts
    host = args.board.lower() == HOST_BOARD
    config = devices.configuration(
        endpoint=facts["endpoint"],
        port=facts["mqtt_port"],
        template=facts["template"],
        parameters={"SerialNumber": args.serial},
        csr=host,  # a Pi makes its own key; boards cannot
        attributes=_attributes(args.attribute),
    )
    devices.prepare(
        args.folder,
        config,
        on_board=not host,
        board="" if host else args.board,
        ca=Path(facts["ca"]),
        claim_certificate=Path(facts["claim_certificate"]),
        claim_key=Path(facts["claim_key"]),
        trust=None if args.trust is None else _trust(args.trust),
        application=args.application,
    )
    steps = (
        [f"edgeagent run --config {args.folder}/agent.json"] if host else [f"mpremote cp -r {args.folder}/. : + reset"]
    )
    if args.json:
        output.print_json({"folder": str(args.folder), "serial": args.serial, "next": steps})
    else:
        output.say(f"{args.folder} is ready for {args.serial}. It holds the claim key: keep it private. Next:")
        for step in steps:
            output.say(f"  {step}")
    return 0


def _attributes(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InputError(f"--attribute {pair}: must be NAME=VALUE")
        found[name] = value
    return found


def _trust(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _TRUST_BYTES:
            raise InputError(f"{path}: a trust file has at most {_TRUST_BYTES} bytes")
        trust = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(trust, dict):
        raise InputError(f"{path}: a trust file is a JSON object")
    return trust
