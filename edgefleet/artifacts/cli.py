# SPDX-License-Identifier: Apache-2.0
"""`edgefleet artifact …`: keygen, trust, build, sign, inspect, verify, publish. Wrong input raises InputError."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeagent.errors import AgentError
from edgeagent.ota import verify as device
from edgefleet.artifacts import publish as publishing
from edgefleet.artifacts import sign as signing
from edgefleet.artifacts.build import Artifact, build
from edgefleet.commands import output
from edgefleet.errors import InputError


def _keygen(args: argparse.Namespace) -> None:
    output.say(signing.generate_key(args.key).hex())


def _trust(args: argparse.Namespace) -> None:
    document = signing.trust_document(args.key, args.threshold, args.floor)
    args.out.write_text(json.dumps(document, indent=1) + "\n")


def _build(args: argparse.Namespace) -> None:
    artifact = build(
        args.folder,
        name=args.name,
        version=args.version,
        boards=args.board,
        runtime=args.runtime,
        security_version=args.security_version,
        expires=args.expires,
    )
    artifact.write(args.out)
    _describe(artifact)


def _sign(args: argparse.Namespace) -> None:
    artifact = signing.sign(Artifact.read(args.artifact), args.key)
    artifact.write(args.artifact)
    output.say(" ".join(key.hex() for key, _, _ in artifact.signatures))


def _inspect(args: argparse.Namespace) -> None:
    _describe(Artifact.read(args.artifact))


def _describe(artifact: Artifact) -> None:
    document = json.loads(artifact.manifest)
    document["digest"] = artifact.digest
    document["signatures"] = [key.hex() for key, _, _ in artifact.signatures]
    output.print_json(document)


def _verify(args: argparse.Namespace) -> None:
    """With both verifiers: the device's own code and an independent one. They must agree."""
    artifact = Artifact.read(args.artifact)
    trust = device.load_trust(str(args.trust))
    signers = signing.valid_signers(artifact, trust.keys)
    asyncio.run(device.open_envelope(artifact.envelope, trust))
    if len(signers) < trust.threshold:
        raise InputError(f"{args.artifact}: the two verifiers disagree; report this as a defect")
    output.say(f"valid: {artifact.info.name} {artifact.version}, signed by {', '.join(signers)}")


def _publish(args: argparse.Namespace) -> None:
    # Loaded here: the other commands need neither network nor boto3.
    from edgefleet import client

    artifact = Artifact.read(args.artifact)
    document = publishing.publish(
        artifact, client.connect(args, "s3"), client.connect(args, "iot"), args.bucket, args.role
    )
    # For machines with room for more facts; for people just what `edgefleet job create --document` takes.
    output.print_json({"stream": document["stream"], "document": document} if args.json else document)


def _guarded(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        try:
            command(args)
        except AgentError as error:  # the device's own code refuses the artifact or the trust file
            raise InputError(str(error)) from None
        return 0

    return run


def add_commands(subparsers: Any) -> None:
    """Add `artifact` and its commands to the operator's parser; each sets `run`: (args) -> exit code."""
    top = subparsers.add_parser("artifact", help="build, sign and publish application updates")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        parser.set_defaults(run=_guarded(command))
        return parser

    keygen = add("keygen", _keygen, "make a P-256 signing key (PEM, readable by you only) and print its id")
    keygen.add_argument("key", type=Path)

    trust = add("trust", _trust, "write the trust file of devices that accept these keys")
    trust.add_argument("key", type=Path, nargs="+", help="PEM file, private or public")
    trust.add_argument("--out", type=Path, required=True)
    trust.add_argument("--threshold", type=int, default=1, help="signatures needed (default 1)")
    trust.add_argument("--floor", type=int, default=0, help="least security version (default 0)")

    make = add("build", _build, "build an unsigned artifact from a folder")
    make.add_argument("folder", type=Path)
    make.add_argument("--out", type=Path, required=True, help="folder for the artifact")
    make.add_argument("--name", required=True)
    make.add_argument("--version", required=True)
    make.add_argument("--board", action="append", required=True, help="board it is for, * for any; may be repeated")
    make.add_argument("--runtime", choices=("micropython", "cpython", "any"), default="micropython")
    make.add_argument("--security-version", type=int, default=0)
    make.add_argument("--expires", type=int, help="epoch seconds after which devices refuse it")

    sign = add("sign", _sign, "add a signature to an artifact and print the ids of its keys")
    sign.add_argument("artifact", type=Path)
    sign.add_argument("--key", type=Path, required=True)

    inspect = add("inspect", _inspect, "show an artifact")
    inspect.add_argument("artifact", type=Path)

    verify = add("verify", _verify, "check an artifact against a trust file as a device does")
    verify.add_argument("artifact", type=Path)
    verify.add_argument("--trust", type=Path, required=True)

    publish = add("publish", _publish, "upload an artifact, create its stream, print the job document")
    publish.add_argument("artifact", type=Path)
    publish.add_argument("--bucket", default=publishing.BUCKET)
    publish.add_argument("--role", default=publishing.ROLE)
