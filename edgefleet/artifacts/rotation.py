# SPDX-License-Identifier: Apache-2.0
"""The next trust document for devices that have one: version N + 1, to be signed by enough keys of N and of N + 1."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeagent.errors import UpdateError
from edgeagent.ota.manifest import parse_envelope
from edgeagent.ota.verify import Trust
from edgefleet.artifacts import room
from edgefleet.artifacts.build import Signed
from edgefleet.errors import InputError


@dataclass
class Rotation(Signed):
    """text: the trust document's exact signed bytes, which are a trust file for new devices too."""

    text: bytes
    signatures: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    smaller = "sign with fewer or smaller keys"

    def write(self, folder: Path) -> None:
        """Store as `envelope` and `trust.json` in `folder`, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "envelope").write_bytes(self.envelope)
        (folder / "trust.json").write_bytes(self.text)

    @classmethod
    def read(cls, folder: Path) -> Rotation:
        """Load what `write` stored. Raises InputError, also if trust.json is not what the signatures are for."""
        try:
            text, signatures = parse_envelope((folder / "envelope").read_bytes())
            Trust(json.loads(text))
            beside = (folder / "trust.json").read_bytes()
        except (OSError, ValueError, RecursionError, UpdateError) as error:
            raise InputError(f"{folder / 'envelope'}: is not a trust document: {error}") from None
        if beside != text:
            raise InputError(f"{folder / 'trust.json'}: is not the trust document that {folder / 'envelope'} signs")
        return cls(text, signatures)

    def check_follows(self, before: dict[str, Any]) -> None:
        """Raises InputError if it is not the next version of this trust file."""
        new, old = Trust(json.loads(self.text)).version, Trust(before).version
        if new != old + 1:
            raise InputError(f"version: {new} cannot follow {old}")

    def changes(self, before: dict[str, Any]) -> list[tuple[str, list[str]]]:
        """("keys that come" or "go" or "stay", [id and algorithm]), those without any left out."""
        old, new = ({entry["id"].lower(): entry for entry in side["keys"]} for side in (before, json.loads(self.text)))
        named = (
            ("keys that come", [new[name] for name in new if name not in old]),
            ("keys that go", [old[name] for name in old if name not in new]),
            ("keys that stay", [new[name] for name in new if name in old]),
        )
        return [(text, [f"{entry['id']} {entry['algorithm']}" for entry in found]) for text, found in named if found]


def read_trust(path: Path) -> dict[str, Any]:
    """A trust file as JSON, or the one in a rotation's folder. Raises InputError."""
    if path.is_dir():
        return dict(json.loads(Rotation.read(path).text))
    try:
        document = json.loads(path.read_bytes())
        Trust(document)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from None
    return dict(document)


def rotate(before: dict[str, Any], after: dict[str, Any]) -> Rotation:
    """The unsigned step from one trust file to the next. The security floor does not fall.

    Raises InputError if the document and the signatures it needs are larger than an envelope may be, now or when one
    of its keys is replaced.
    """
    old = Trust(before)
    document = {
        **after,
        "version": old.version + 1,
        "security_version_floor": max(old.floor, after.get("security_version_floor", 0)),
    }
    room.check_step(before, document)
    room.check_next(document)
    return Rotation(room.encode(document))


def job_document(chain: Sequence[Rotation]) -> dict[str, Any]:
    """The document of a `trust` job, of rotations in order."""
    return {"operation": "trust", "envelopes": [base64.b64encode(one.envelope).decode() for one in chain]}
