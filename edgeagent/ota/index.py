# SPDX-License-Identifier: Apache-2.0
"""Write the index of a slot and clean the store, of which store.py says what they are: once, before blocks come."""

import hashlib
import os

from edgeagent import compat
from edgeagent.compat import Any
from edgeagent.ota import trial
from edgeagent.ota.store import find


def write(slot: str, entries: "Any") -> None:
    """slot: its path. entries: function that returns an iterator of (path, bytes, name in the store). Raises OSError.

    In place: an index counts for nothing before its slot is complete.
    """
    seal = hashlib.sha256(b"\n")
    for entry in entries():
        seal.update(b"%s %d %s\n" % entry)
    with open(slot + ".idx", "wb") as f:
        f.write(seal.digest()[:8] + b"\n")
        for entry in entries():
            f.write(b"%s %d %s\n" % entry)
        compat.sync_file(f)
    compat.sync_dir(slot[:-2])


def clean(slot: str) -> None:
    """Delete from the store what no slot names. Raises OSError."""
    store = slot[:-1] + "store"
    for entry in os.listdir(store) if compat.posix else os.ilistdir(store):  # type: ignore[attr-defined]
        name = entry if compat.posix else entry[0]
        if not find(slot + ".idx", " %s\n" % name) and not used(slot, name):
            os.unlink(store + "/" + name)


def used(slot: str, name: str) -> "Any":
    """True if the index of the other slot names it."""
    index = slot[:-1] + trial.other(slot[-1:]) + ".idx"
    return compat.exists(index) and find(index, " %s\n" % name)
