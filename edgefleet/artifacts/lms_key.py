# SPDX-License-Identifier: Apache-2.0
"""An LMS signing key (RFC 8554, one tree, W8) that can never sign twice with the same leaf.

Two signatures with one leaf of an LMS key let anybody forge. So the key file holds no counter: beside it stands an
append-only ledger, KEY.ledger, with a line for each leaf that was given out. A line is on the disk (fsync) before the
signature exists, under a lock, and whatever was begun counts as used. A missing, damaged or foreign ledger is refused:
to restore an old copy of it, or to use copies of the key on two machines, is the one thing nobody can detect.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgefleet.errors import InputError

HEIGHTS = {"lms-h5": 5, "lms-h10": 6, "lms-h15": 7}  # kind → LMS type (RFC 8554 section 8); 32, 1024, 32768 signatures
_W8 = 4  # LM-OTS type: the smallest signatures, 1296 bytes and more


def _library() -> Any:
    try:
        from pyhsslms import pyhsslms
    except ImportError:
        raise InputError("LMS keys need the package pyhsslms: pip install 'edgeagent[lms]'") from None
    return pyhsslms


def generate(path: Path, kind: str, write_new: Callable[[Path, bytes], None]) -> LmsKey:
    """Make a key and its empty ledger. Raises InputError if they exist, or for another kind."""
    if kind not in HEIGHTS:
        raise InputError(f"{kind}: must be one of {', '.join(HEIGHTS)}")
    library = _library()
    tree = library.LmsPrivateKey(lms_type=HEIGHTS[kind].to_bytes(4, "big"), lmots_type=_W8.to_bytes(4, "big"))
    public = (1).to_bytes(4, "big") + tree.publicKey().serialize()
    secret = {"lms": kind, "identifier": tree.I.hex(), "seed": tree.SEED.hex(), "root": public.hex()}
    write_new(path, (json.dumps(secret) + "\n").encode())
    write_new(Path(f"{path}.ledger"), _header(public))
    _sync_folder(path)
    return LmsKey(path)


def _header(public: bytes) -> bytes:
    return b"lms-ledger %s\n" % hashlib.sha256(public).hexdigest().encode()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LmsKey:
    """public: HSS public key of one level, 60 bytes."""

    def __init__(self, path: Path) -> None:
        """Raises InputError if the file is not what `generate` wrote."""
        self._ledger = Path(f"{path}.ledger")
        try:
            secret = json.loads(path.read_bytes())
            self._type = HEIGHTS[secret["lms"]]
            self._identifier = bytes.fromhex(secret["identifier"])
            self._seed = bytes.fromhex(secret["seed"])
            self.public = bytes.fromhex(secret["root"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{path}: is not an LMS key") from None
        self.capacity = 1 << (5 * self._type - 20)

    def used(self) -> int:
        """Leaves that the ledger says are used. Raises InputError."""
        try:
            return self._count(self._ledger.read_bytes())
        except OSError:
            raise InputError(f"{self._ledger}: is missing; without it a leaf could be used twice") from None

    def _count(self, ledger: bytes) -> int:
        header = _header(self.public)
        if not ledger.startswith(header):
            raise InputError(f"{self._ledger}: is not the ledger of this key")
        lines = ledger[len(header) :].split(b"\n")
        for leaf, line in enumerate(lines):
            whole = leaf < len(lines) - 1  # what follows the last line end was cut short, if there is anything
            if whole and not (line.startswith(b"%d " % leaf) or line.endswith(b" cut")):
                raise InputError(f"{self._ledger}: line {leaf + 2} is damaged; this key must not be used any more")
        return len(lines) - (not lines[-1])

    def sign(self, message: bytes) -> bytes:
        """HSS signature. Raises InputError if the ledger is wrong or no leaf is left, OSError if it cannot be written.

        Returns only after the leaf's line is durable.
        """
        library = _library()
        try:
            descriptor = os.open(self._ledger, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            raise InputError(f"{self._ledger}: is missing; without it a leaf could be used twice") from None
        with os.fdopen(descriptor, "r+b", buffering=0) as ledger:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            text = ledger.read()
            leaf = self._count(text)
            if leaf >= self.capacity:
                raise InputError(f"{self._ledger}: all {self.capacity} signatures are used; make a new key")
            line = b"%d %s\n" % (leaf, hashlib.sha256(message).hexdigest().encode())
            if not text.endswith(b"\n"):
                line = b" cut\n" + line  # an earlier line was cut short: its leaf counts as used
            if ledger.write(line) != len(line):
                raise InputError(f"{self._ledger}: cannot be written")
            os.fsync(ledger.fileno())
        _sync_folder(self._ledger)
        tree = library.LmsPrivateKey(
            lms_type=self._type.to_bytes(4, "big"),
            lmots_type=_W8.to_bytes(4, "big"),
            SEED=self._seed,
            I=self._identifier,
            q=leaf,
        )
        if (1).to_bytes(4, "big") + tree.publicKey().serialize() != self.public:
            raise InputError(f"{self._ledger}: the key file is damaged")
        return bytes(4) + bytes(tree.sign(message))
