# SPDX-License-Identifier: Apache-2.0
"""Which slot to boot; trial, confirmation and rollback. Small: the boot trampoline loads it before anything else.

    none ──activate──▶ trial ──confirm──▶ confirmed        activate is slots.Slots.activate
                         └──failed, or MAX_BOOTS boots without a confirmation──▶ rolled_back
Files below the slots folder, each JSON with 8 bytes of its SHA-256 in front:
    state.json state.bak   which slot is active and the state of its trial (the same bytes twice)
    a.json b.json          what is known of a slot's content; absent for a slot filled at the factory
    a.idx b.idx            the files of a slot, see store.py; absent for a plain folder
Each arrow is one durable write (`save`): it commits with the atomic replacement of `state.json`; `state.bak` follows.
A damaged copy therefore costs nothing, and a cut between the two is resolved by the higher sequence number `n`.
Power loss in a trial counts as a boot: the reason then says how the trial boots ended, so that an interrupted trial is
not mistaken for a crash.
"""

import hashlib
import json
import os
import sys

from edgeagent.compat import Any, const, exc_text, exists, is_dir, read_file, remove_tree, write_atomic
from edgeagent.ota import Running as Running

MAX_BOOTS = 3
_ENOENT = const(2)
_ENOSPC = const(28)


def seal(text: bytes) -> bytes:
    """8 bytes, which stand in front of it in a file."""
    return hashlib.sha256(text).digest()[:8]


def unseal(raw: "bytes | None") -> bytes:
    """The text behind a seal; nothing if it is missing or damaged."""
    raw = raw or b""
    return raw[8:] if seal(raw[8:]) == raw[:8] else b""


def read_sealed(path: str) -> "dict[str, Any] | None":
    """The object of a sealed file, or None if it is missing, damaged or over 4096 bytes."""
    try:
        return json.loads(unseal(read_file(path, 4096)).decode())  # type: ignore[no-any-return]
    except ValueError:
        return None


def write_sealed(path: str, document: "dict[str, Any]") -> None:
    """Replace a sealed file atomically. Raises OSError; the old file is then untouched."""
    text = json.dumps(document).encode()
    write_atomic(path, seal(text) + text)


def status(root: str) -> "dict[str, Any]":
    """The newest valid copy of the state; if there is none, that of a device which has never had an update.

    n: sequence number, 0 if nothing was ever written. active: "a", "b" or None (no application). state: "none",
    "trial", "confirmed" or "rolled_back". floor: least security version. Of the latest update: version,
    previous_version, job, reason (text or None), boots, deadline_s; from its activation on also security_version and
    causes (of the restarts in its trial).
    """
    best: "dict[str, Any]" = {"n": 0, "state": "none", "floor": 0, "boots": 0, "deadline_s": 0}
    for name in ("active", "version", "previous_version", "reason", "job"):
        best[name] = None
    for name in ("/state.json", "/state.bak"):
        document = read_sealed(root + name)
        if document and document.get("n", 0) > best["n"]:
            best.update(document)
    if not best["n"]:
        best["active"] = pick(root)
    return best


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


def filled(root: str, slot: "str | None") -> bool:
    """True if a slot has an index that is whole, or else a folder that holds anything. Raises OSError, which says
    neither.
    """
    path = "%s/%s" % (root, slot)
    for last in (0, 1):  # a read may go wrong once
        try:
            with open(path + ".idx", "rb") as f:
                seal = f.read(8)
                found = hashlib.sha256()
                data = seal
                while data:
                    data = f.read(512)
                    found.update(data)
                if found.digest()[:8] == seal:
                    return True
        except OSError as error:
            if error.errno == _ENOENT:
                return is_dir(path) and bool(os.listdir(path))
            if last:
                raise
    return False


def info(root: str, slot: "str | None") -> "dict[str, Any]":
    """What is known of a slot's content.

    Members: complete (bool); if it was filled by an update artifact (hex of the manifest's SHA-256, None while the slot
    is being wiped), version, security_version, n (the sequence number when it became complete).
    A slot without the file was filled at the factory and is complete; a damaged file proves nothing, so it is not.
    """
    path = "%s/%s.json" % (root, slot)
    return read_sealed(path) or {"complete": not exists(path)}


def pick(root: str) -> "str | None":
    """The slot to run when no state is left: of two complete slots the older one, since the newer may be unproven."""
    found = []
    for slot in ("a", "b"):
        known = info(root, slot)
        if known["complete"] and filled(root, slot):
            found.append((known.get("n", 0), slot))
    return min(found)[1] if found else None


def boot(root: str, cause: str = "") -> "str | None":
    """Choose the slot to run and count the boot if it is on trial; roll back by itself after MAX_BOOTS.

    cause: why the device restarted (the port's reset cause), kept to explain a rollback.
    Returns the slot's folder, or None if no slot holds an application. Raises OSError if that cannot be found out.
    """
    document = status(root)
    slot = document["active"]
    if document["state"] == "trial":
        if document["boots"]:
            document["causes"].append(cause or "unknown")
        counted = document["boots"] < MAX_BOOTS and filled(root, slot)
        if counted:
            document["boots"] += 1
            try:
                save(root, document)
            except OSError as error:
                # A boot that cannot be counted must not run the new version: it could fail for ever.
                counted = False
                failed(root, "its boots cannot be counted: " + exc_text(error))
        else:
            failed(root, "interrupted: " + (", ".join(document["causes"]) or "the slot is empty"))
        if not counted:
            slot = other(slot)
    elif slot and document["state"] != "rolled_back" and not filled(root, slot):
        slot = pick(root)  # it was lost; a version that was rolled back is never tried in its place
    if not filled(root, slot):
        slot = ""
    Running.slot = slot
    Running.artifact = (info(root, slot).get("artifact") or "")[:16]
    return root + "/" + slot if slot else None


def failed(root: str, reason: str) -> bool:
    """End a trial: the previous slot becomes active again and `reason` is kept.

    True if there was a trial and a restart is of use: not if this could not be stored, and the firmware before runs.
    """
    document = status(root)
    if document["state"] != "trial":
        return False
    runs = True
    if sys.platform == "esp32" and root[-9:] == "/firmware":
        from edgeagent.ota.partition import Firmware

        target = Firmware(root)
        target.drop(document["active"])  # first: else what goes on running would be called rolled back
        runs = target.own == document["active"]
    slot = str(document["active"])
    # Whether it is whole is for `boot` to find out: what is stored outlives a read that has failed.
    document["active"] = document.get("before", other(slot))
    document["state"] = "rolled_back"
    document["reason"] = reason[:240]
    for full in (0, 1):
        try:
            if full:
                # What is given up makes room, for the next update as well.
                for name in (slot, slot + ".idx", "envelope", "hashes", "patch"):
                    remove_tree(root + "/" + name)
            save(root, document)
            return True
        except OSError as error:
            # Still on trial on flash: the next boot comes here again.
            if error.errno != _ENOSPC:
                break
    return runs


def confirm(root: str) -> bool:
    """Make the version on trial the good one and raise the security floor to its own. Raises OSError.

    True if the running version is confirmed now, also if it was before; False if there is nothing to confirm.
    """
    document = status(root)
    if document["state"] == "trial":
        document["state"] = "confirmed"
        document["floor"] = max(document["floor"], document["security_version"])
        save(root, document)
    return document["state"] == "confirmed"  # type: ignore[no-any-return]
