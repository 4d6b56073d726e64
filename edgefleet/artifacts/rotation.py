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
from edgefleet.artifacts.build import Signed
from edgefleet.errors import InputError


@dataclass
class Rotation(Signed):
    """text: the trust document's exact signed bytes, which are a trust file for new devices too."""

    text: bytes
    signatures: list[tuple[bytes, int, bytes]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Store as `envelope` and `trust.json` in `folder`, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "envelope").write_bytes(self.envelope)
        (folder / "trust.json").write_bytes(self.text)

    @classmethod
    def read(cls, folder: Path) -> Rotation:
        """Load what `write` stored. Raises InputError."""
        try:
            text, signatures = parse_envelope((folder / "envelope").read_bytes())
            Trust(json.loads(text))
        except (OSError, ValueError, RecursionError, UpdateError) as error:
            raise InputError(f"{folder / 'envelope'}: is not a trust document: {error}") from None
        return cls(text, signatures)


def read_trust(path: Path) -> dict[str, Any]:
    """A trust file as JSON, or the one in a rotation's folder. Raises InputError."""
    path = path / "trust.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_bytes())
        Trust(document)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from None
    return dict(document)


def rotate(before: dict[str, Any], after: dict[str, Any]) -> Rotation:
    """The unsigned step from one trust file to the next. The security floor does not fall.

    Raises InputError if the document is larger than an envelope may be.
    """
    old = Trust(before)
    document = {
        **after,
        "version": old.version + 1,
        "security_version_floor": max(old.floor, after.get("security_version_floor", 0)),
    }
    made = Rotation(json.dumps(document, separators=(",", ":"), sort_keys=True).encode())
    _ = made.envelope
    return made


def job_document(chain: Sequence[Rotation]) -> dict[str, Any]:
    """The document of a `trust` job, of rotations in order."""
    return {"operation": "trust", "envelopes": [base64.b64encode(one.envelope).decode() for one in chain]}
