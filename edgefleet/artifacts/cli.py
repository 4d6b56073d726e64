# SPDX-License-Identifier: Apache-2.0
"""`edgefleet artifact …`: keys and trust, build, sign, inspect, verify, publish. Wrong input raises InputError."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeagent.errors import AgentError
from edgeagent.ota import verify as device
from edgefleet.artifacts import delta, firmware, rotation, verify
from edgefleet.artifacts import publish as publishing
from edgefleet.artifacts import sign as signing
from edgefleet.artifacts.build import Artifact, build
from edgefleet.commands import output
from edgefleet.errors import InputError


def _keygen(args: argparse.Namespace) -> None:
    output.say(signing.generate_key(args.key, args.kind).hex())


def _trust(args: argparse.Namespace) -> None:
    document = signing.trust_document(args.key, args.threshold, args.floor, expires=args.expires)
    args.out.write_text(json.dumps(document, indent=1) + "\n")


def _rotate(args: argparse.Namespace) -> None:
    before = rotation.read_trust(args.trust)
    after = signing.trust_document(args.key, args.threshold, args.floor, expires=args.expires)
    made = rotation.rotate(before, after)
    for path in args.sign:
        signing.sign(made, path)
    made.write(args.out)
    _describe(args, made, before)


def _trust_job(args: argparse.Namespace) -> None:
    output.print_json(rotation.job_document([rotation.Rotation.read(path) for path in args.rotation]))


def _build(args: argparse.Namespace) -> None:
    requires = {}
    for text in args.require:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--require {text}: must be FACT=VALUE")
        requires[name] = value
    options: dict[str, Any] = {
        "security_version": args.security_version,
        "expires": args.expires,
        "requires": requires,
        "downgrade": args.downgrade_from,
    }
    options |= {name: value for name in ("name", "version") if (value := getattr(args, name))}
    if args.type == "agent":
        if args.folder or args.runtime != "micropython":
            raise InputError("--type agent: takes no folder, and is for boards; elsewhere pip installs the agent")
        # Loaded here: it links and compiles.
        from edgefleet.artifacts.agent import build_agent

        artifact = build_agent(args.board, **options, **({"optimise": args.optimise} if args.optimise else {}))
    elif args.type == "firmware":
        if not args.folder or args.optimise:
            raise InputError("--type firmware: needs the app image (micropython.bin), and takes no --optimise")
        artifact = firmware.build_firmware(args.folder, args.board, **options)
    else:
        if not (args.folder and args.name and args.version) or args.optimise:
            raise InputError("an application needs FOLDER, --name and --version; --optimise is for --type agent")
        artifact = build(args.folder, boards=args.board, runtime=args.runtime, **options)
    artifact.write(args.out)
    _describe(args, artifact)
    if device.before(artifact.version, artifact.version) is None:
        output.complain(
            f"--version {_line(artifact.version)}: devices cannot tell which of two such versions is later, so an older"
            " one is not refused; take numbers, such as 2.1.0"
        )


def _read(folder: Path) -> Artifact | rotation.Rotation:
    """A rotation's folder holds a trust file, an artifact's a payload."""
    return rotation.Rotation.read(folder) if (folder / "trust.json").exists() else Artifact.read(folder)


def _sign(args: argparse.Namespace) -> None:
    """A rotation only where the user says so: what lies in a folder must not decide that it brings in new keys."""
    document: Artifact | rotation.Rotation
    if args.rotation:
        document = rotation.Rotation.read(args.artifact)
        shown = _rotation_rows(document, rotation.read_trust(args.rotation))
    elif (args.artifact / "trust.json").exists():
        raise InputError(f"{args.artifact}: holds a rotation of the trusted keys; sign it with --rotation TRUST")
    else:
        document = Artifact.read(args.artifact)
        kind = document.info.type or "application"
        shown = [(kind, f"{document.info.name} {document.version}, security version {document.info.security_version}")]
        if document.info.downgrade:
            shown.append(("may go back from", ", ".join(document.info.downgrade)))
    for name, value in shown:
        output.say(f"{name}: {_line(value)}")
    document = signing.sign(document, args.key)
    document.write(args.artifact)
    output.say(" ".join(key.hex() for key, _, _ in document.signatures))


def _rotation_rows(made: rotation.Rotation, before: dict[str, Any]) -> list[tuple[str, str]]:
    """What a rotation changes, seen from the trust file in force. Raises InputError if it does not follow it."""
    made.check_follows(before)
    sides = [device.Trust(side) for side in (json.loads(made.text), before)]
    wanted = [f"{side.threshold} of {len(side.keys)} keys, security version {side.floor}" for side in sides]
    head = f"trust version {sides[0].version}: {wanted[0]} (in force: {wanted[1]})"
    return [("rotation", head), *[(name, ", ".join(found)) for name, found in made.changes(before)]]


def _inspect(args: argparse.Namespace) -> None:
    _describe(args, _read(args.artifact), rotation.read_trust(args.trust) if args.trust else None)


def _describe(
    args: argparse.Namespace, document: Artifact | rotation.Rotation, trust: dict[str, Any] | None = None
) -> None:
    """Every member, file and signature. With a trust file, also whether each signature holds."""
    members = json.loads(document.text)
    envelope = document.envelope
    judged = verify.signatures(envelope, trust or {"keys": []})
    if isinstance(document, rotation.Rotation):  # a key that is only in the new set counts as well
        new = verify.signatures(envelope, members)
        judged = [one if one.state == "valid" else other for one, other in zip(judged, new, strict=True)]
    files = []
    if isinstance(document, Artifact):
        members["digest"] = document.digest
        if image := firmware.image_of(document):
            members["image"] = vars(image)
        hashes = document.blocks[-32 * len(document.info.files) :]
        for number, (path, size, _, mode) in enumerate(document.info.files):
            files.append((path, size, hashes[32 * number : 32 * number + 32].hex(), mode))
    if args.json:
        members["envelope_bytes"] = len(envelope)
        members["signatures"] = [vars(one) for one in judged]
        if files:
            members["files"] = [dict(zip(("path", "bytes", "sha256", "mode"), entry, strict=True)) for entry in files]
        output.print_json(members)
        return
    if isinstance(document, rotation.Rotation) and trust:
        members |= dict(document.changes(trust))
    output.print_table(("MEMBER", "VALUE"), [*_rows(members), ("envelope", f"{len(envelope)} of 4096 bytes")])
    if files:
        shown = [(path, size, digest[:16], "" if mode is None else f"{mode:o}") for path, size, digest, mode in files]
        output.print_table(("FILE", "BYTES", "SHA-256", "MODE"), shown)
    without = trust is None and isinstance(document, Artifact)
    output.print_table(
        ("SIGNED BY", "ALGORITHM", "STATE"),
        [(one.key, one.algorithm, "not checked: no --trust" if without else one.state) for one in judged],
    )


def _rows(members: dict[str, Any]) -> list[tuple[str, str]]:
    """The members as people read them: one line each, times as dates."""
    rows: list[tuple[str, str]] = []
    for name, value in members.items():
        if name == "files":
            continue
        if name == "expires" and value:
            with suppress(ValueError, OverflowError):  # after the year 9999
                value = f"{value} ({datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M} UTC)"
        if name == "keys":
            value = [f"{entry['id']} {entry['algorithm']}" for entry in value]
        if isinstance(value, dict):
            rows += [(_line(f"{name}.{key}"), _line(str(inner))) for key, inner in value.items()]
        else:
            rows.append((name, _line(", ".join(map(str, value)) if isinstance(value, list) else str(value))))
    return rows


def _line(text: str) -> str:
    """Text of others, which might otherwise print a line that looks like one of ours: line ends are shown escaped too.

    Tabs as well; output.py does it for all that steers a terminal.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _verify(args: argparse.Namespace) -> None:
    """With both verifiers: the device's own code and an independent one. They must agree."""
    document = _read(args.artifact)
    trust = rotation.read_trust(args.trust)
    signers = verify.both(document, trust)
    if isinstance(document, Artifact):
        firmware.image_of(document)
        name = f"{document.info.name} {document.version}"
    else:
        name = f"trust version {json.loads(document.text)['version']}"
    if args.json:
        output.print_json({"valid": name, "signers": signers})
    else:
        output.say(f"valid: {_line(name)}, signed by {', '.join(signers)}")


def _publish(args: argparse.Namespace) -> None:
    # Loaded here: the other commands need neither network nor boto3.
    from edgefleet import client

    artifact = Artifact.read(args.artifact)
    iot = client.connect(args, "iot")
    deltas = _deltas(args, artifact, iot)
    document = publishing.publish(artifact, client.connect(args, "s3"), iot, args.bucket, args.role, args.https, deltas)
    # For machines with room for more facts; for people just what `edgefleet job create --document` takes.
    output.print_json({"stream": document["stream"], "document": document} if args.json else document)


def _deltas(args: argparse.Namespace, new: Artifact, iot: Any) -> list[delta.Delta]:
    """What --delta-from names, and what the devices of --delta-for or --target run; a table of it on stderr."""
    found = {one.digest: delta.Delta.make(one, new) for one in map(Artifact.read, args.delta_from)}
    query = args.delta_for
    for group in args.target:
        kind, _, name = group.partition("/")
        if kind != "group" or not name:
            raise InputError(f"--target {group}: must be group/NAME")
        query = f"({query}) OR thingGroupNames:{name}" if query else f"thingGroupNames:{name}"
    unknown = {}
    if query:
        if new.info.type not in (None, "application"):
            raise InputError("--delta-for, --target: devices only report their application; take --delta-from")
        if not args.library:
            raise InputError("--library: needed, the folder of artifacts that devices may run")
        built = delta.library(args.library)
        for identity, devices in delta.running(iot, query).items():
            old = built.get(identity)
            if old is None:
                unknown[identity] = devices
            elif old.digest != new.digest:
                found[old.digest] = delta.Delta.make(old, new, devices)
    made = delta.chosen(found.values(), new, delta.MOST_URLS if args.https else delta.MOST)
    rows: list[tuple[Any, ...]] = [
        (
            one.old.digest[: delta.REPORTED],
            _line(one.old.version),
            one.devices,
            len(one.patch),
            f"{100 * len(one.patch) / len(new.payload):.1f} %" + ("" if one in made else ", not published"),
        )
        for one in sorted(found.values(), key=lambda one: -(one.devices or 0))
    ]
    rows += [
        (_line(identity or "unknown"), "", devices, "", "not in the library") for identity, devices in unknown.items()
    ]
    if rows:
        output.print_table(("ARTIFACT", "VERSION", "DEVICES", "DELTA BYTES", "OF FULL"), rows, output.errors)
    return made


def _delta(args: argparse.Namespace) -> None:
    new = Artifact.read(args.new)
    patch = delta.make_delta(Artifact.read(args.old), new)
    args.out.write_bytes(patch)
    share = round(100 * len(patch) / len(new.payload), 2)
    if args.json:
        output.print_json({"bytes": len(patch), "percent": share})
    else:
        output.say(f"{len(patch)} bytes, {share} % of {len(new.payload)}")


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

    keygen = add("keygen", _keygen, "make a signing key (readable by you only) and print its id")
    keygen.add_argument("key", type=Path)
    keygen.add_argument("--kind", default="ecdsa-p256", help=f"{', '.join(signing.KINDS)} (default ecdsa-p256)")

    def keys(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("key", type=Path, nargs="+", help="PEM file with either half, LMS key or its .pub")
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--threshold", type=int, default=1, help="signatures needed (default 1)")
        parser.add_argument("--floor", type=int, default=0, help="least security version (default 0)")
        parser.add_argument("--expires", type=int, help="epoch seconds after which only the next version is accepted")

    keys(add("trust", _trust, "write the trust file of devices that accept these keys"))

    rotate = add("rotate", _rotate, "make the next version of a trust file, to be signed by old and new keys")
    rotate.add_argument("trust", type=Path, help="trust file in force, or folder of the last rotation")
    keys(rotate)
    rotate.add_argument("--sign", type=Path, action="append", default=[], help="sign with this key; may be repeated")

    job = add("trust-job", _trust_job, "print the job document that brings rotations to devices")
    job.add_argument("rotation", type=Path, nargs="+", help="folders, oldest first")

    make = add("build", _build, "build an unsigned artifact from a folder, or of the agent itself")
    make.add_argument("folder", type=Path, nargs="?", help="of the application; an app image for --type firmware")
    kinds = ("application", "agent", "firmware")
    make.add_argument("--type", choices=kinds, default="application", help="what it replaces")
    make.add_argument("--optimise", type=int, choices=(2, 3), help="of the agent: 2 keeps line numbers (default 3)")
    make.add_argument("--out", type=Path, required=True, help="folder for the artifact")
    make.add_argument("--name", help="needed for an application")
    make.add_argument("--version", help="needed for an application; default: that of the agent or image itself")
    make.add_argument(
        "--board", action="append", required=True, help="board it is for, NAME or NAME@2-3, * for any; may be repeated"
    )
    make.add_argument("--runtime", choices=("micropython", "cpython", "any"), default="micropython")
    make.add_argument("--security-version", type=int, default=0)
    make.add_argument("--expires", type=int, help="epoch seconds after which devices refuse it")
    make.add_argument(
        "--require", action="append", default=[], metavar="FACT=VALUE", help="such as agent=0.2.0; may be repeated"
    )
    make.add_argument(
        "--downgrade-from", action="append", default=[], metavar="VERSION", help="may go back from it; needs --expires"
    )

    sign = add("sign", _sign, "say what is signed, add a signature to it and print the ids of all its keys")
    sign.add_argument("artifact", type=Path)
    sign.add_argument("--key", type=Path, required=True)
    sign.add_argument(
        "--rotation", type=Path, metavar="TRUST", help="it is a rotation of this trust file, which is in force"
    )

    inspect = add("inspect", _inspect, "show an artifact or a rotation")
    inspect.add_argument("artifact", type=Path)
    inspect.add_argument("--trust", type=Path, help="trust file to judge the signatures by")

    check = add(
        "verify", _verify, "check an artifact or a rotation against a trust file, as a device does and by others"
    )
    check.add_argument("artifact", type=Path)
    check.add_argument("--trust", type=Path, required=True)

    patch = add("delta", _delta, "make the patch from one artifact to another, and show what it saves")
    patch.add_argument("old", type=Path)
    patch.add_argument("new", type=Path)
    patch.add_argument("--out", type=Path, required=True, help="file for the patch")

    publish = add("publish", _publish, "upload an artifact, create its stream, print the job document")
    publish.add_argument("artifact", type=Path)
    publish.add_argument("--bucket", default=publishing.BUCKET)
    publish.add_argument("--role", default=publishing.ROLE)
    publish.add_argument(
        "--https", action="store_true", help="devices fetch over HTTPS, by presigned URLs, not over MQTT"
    )
    publish.add_argument(
        "--delta-from", type=Path, action="append", default=[], metavar="ARTIFACT", help="add a patch; may be repeated"
    )
    publish.add_argument("--delta-for", default="", metavar="QUERY", help="add patches for what these devices run")
    publish.add_argument(
        "--target", action="append", default=[], metavar="group/NAME", help="as --delta-for, for a group"
    )
    publish.add_argument("--library", type=Path, help="folder of the artifacts that devices may run")
