# SPDX-License-Identifier: Apache-2.0
"""The few facts about the slots that must survive a power cut, sealed with a checksum.

Files below the slots folder:
    state.json state.bak   which slot is active and the state of its trial (the same bytes twice)
    a.json b.json          what is known of a slot's content; absent for a slot filled at the factory
A transition commits with the atomic replacement of `state.json`; `state.bak` follows. A damaged copy therefore costs
nothing, and a cut between the two is resolved by the higher sequence number `n`.
"""

import binascii
import hashlib
import json
import os

from edgeagent.compat import Any, is_dir, read_file, write_atomic

_LIMIT = 2048  # bytes of a sealed file
_SEAL = 16  # hex characters of SHA-256 before the JSON text

NAMES = ("a", "b")
PHASES = ("none", "trial", "confirmed", "rolled_back")


def _digest(text: bytes) -> bytes:
    return binascii.hexlify(hashlib.sha256(text).digest()[: _SEAL // 2])


def read_sealed(path: str) -> "dict[str, Any] | None":
    """The object of a sealed file, or None if it is missing, damaged or too large."""
    raw = read_file(path, _LIMIT)
    if raw is None or raw[:_SEAL] != _digest(raw[_SEAL:]):
        return None
    try:
        document = json.loads(raw[_SEAL:].decode())
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def write_sealed(path: str, document: "dict[str, Any]") -> None:
    """Replace a sealed file atomically. Raises OSError; the old file is then untouched."""
    text = json.dumps(document).encode()
    write_atomic(path, _digest(text) + text)


def load(root: str) -> "dict[str, Any] | None":
    """The newest valid copy of the state, or None if there is none.

    Members: n, active ("a"|"b"|None: no application), phase (one of PHASES), floor; of the latest update version,
    previous_version, job, reason (text or None), boots, deadline_s, security_version (int), causes (of its boots).
    """
    best = None
    for name in ("/state.json", "/state.bak"):
        document = read_sealed(root + name)
        if (
            document
            and document.get("active") in (None, "a", "b")
            and document.get("phase") in PHASES
            and (best is None or document["n"] > best["n"])
        ):
            best = document
    return best


def initial(active: "str | None") -> "dict[str, Any]":
    """The state of a device that has never had an update."""
    return {"n": 0, "active": active, "phase": "none", "floor": 0}


def save(root: str, document: "dict[str, Any]") -> None:
    """Make a transition durable. Raises OSError if it did not happen."""
    document["n"] += 1
    write_sealed(root + "/state.json", document)
    try:
        write_sealed(root + "/state.bak", document)
    except OSError:
        pass  # the transition is made; the second copy is only insurance


def other(slot: "str | None") -> str:
    """The slot that is not `slot`; "a" if there is none."""
    return "b" if slot == "a" else "a"


def filled(root: str, slot: str) -> bool:
    """True if a slot's folder holds anything."""
    path = root + "/" + slot
    return is_dir(path) and bool(os.listdir(path))


def info(root: str, slot: str) -> "dict[str, Any]":
    """What is known of a slot's content.

    Members: complete (bool), artifact (hex of the manifest's SHA-256, None while the slot is being wiped), version,
    security_version, n (the sequence number when it became complete).
    A slot without the file was filled at the factory and is complete; a damaged file proves nothing, so it is not.
    """
    path = root + "/" + slot + ".json"
    document = read_sealed(path)
    if document is None:
        known = read_file(path, _LIMIT) is None
        document = {"complete": known, "artifact": None, "version": None, "security_version": 0, "n": 0}
    return document


def pick(root: str) -> "str | None":
    """The slot to run when no state is left: of two complete slots the older one, since the newer may be unproven."""
    best = None
    best_n = 0
    for slot in NAMES:
        if filled(root, slot):
            known = info(root, slot)
            if known["complete"] and (best is None or known["n"] < best_n):
                best = slot
                best_n = known["n"]
    return best
