# SPDX-License-Identifier: Apache-2.0
"""Whether a rotation fits into an envelope: a trust document and the signatures it needs, in LIMITS.MANIFEST_BYTES.

A trust file whose next rotation cannot fit would be in force for ever, so none is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgeagent.limits import LIMITS
from edgefleet.errors import InputError

SIGNATURES = 8  # the most an envelope has (edgeagent/ota/manifest.py)
_FRAME = 7  # magic, length of the text, number of signatures
_ENTRY = 11  # key id, algorithm, length
_NUMBERS = {"version": 1 << 30, "security_version_floor": 1 << 30, "expires": 1 << 33}  # as long as they may get
_CHAINS = {1: 265, 2: 133, 3: 67, 4: 34}  # LM-OTS type → p (RFC 8554 section 4.1)


def encode(document: Mapping[str, Any]) -> bytes:
    """A trust document as it is signed."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def signature_bytes(key: Mapping[str, str]) -> int:
    """What a signature by an entry of `keys` takes in an envelope. Raises InputError for an unknown LMS type."""
    public = bytes.fromhex(key["public"])
    if key["algorithm"] == "ecdsa-p256":
        return _ENTRY + 64
    if key["algorithm"] == "rsa-sha256":
        return _ENTRY + len(public)
    levels, tree, chains = (int.from_bytes(public[at : at + 4], "big") for at in (0, 4, 8))
    if chains not in _CHAINS or not 5 <= tree <= 9 or not 1 <= levels <= 3:
        raise InputError(f"keys: {key['id']} is an LMS key of a type that devices do not know")
    one = 4 + 4 + 32 * (1 + _CHAINS[chains]) + 4 + 32 * 5 * (tree - 4)
    # Only the uppermost tree is in the public key; the others are taken to be like it.
    return _ENTRY + 4 + levels * one + (levels - 1) * 56


def check_next(trust: Mapping[str, Any]) -> None:
    """Any one key can be replaced by another of its kind, whichever of the keys sign.

    If all have to sign, the new one signs on top of them; else those that stay are enough for both sides.
    trust: a checked trust document. Raises InputError.
    """
    keys, threshold = trust["keys"], trust["threshold"]
    sizes = sorted((signature_bytes(key) for key in keys), reverse=True)
    every = threshold == len(keys)
    count = threshold + every
    size = _FRAME + len(encode({**trust, **_NUMBERS})) + sum(sizes[:threshold]) + every * sizes[0]
    if count > SIGNATURES:
        raise InputError(f"threshold: replacing a key takes {count} signatures, of at most {SIGNATURES}; lower it")
    if size > LIMITS.MANIFEST_BYTES:
        raise InputError(
            f"keys: replacing one of them takes an envelope of {size} bytes, {count} signatures included, of at most"
            f" {LIMITS.MANIFEST_BYTES}; use fewer or smaller keys, or a lower threshold"
        )


def check_step(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Some choice of signers satisfies both sides and fits. after: as it will be signed. Raises InputError."""
    old, new = ({key["id"].lower(): signature_bytes(key) for key in side["keys"]} for side in (before, after))
    both = sorted(old[name] for name in old if name in new)
    only_old = sorted(old[name] for name in old if name not in new)
    only_new = sorted(new[name] for name in new if name not in old)
    sizes = []
    for shared in range(len(both) + 1):
        for_old, for_new = (max(0, side["threshold"] - shared) for side in (before, after))
        count = shared + for_old + for_new
        if for_old <= len(only_old) and for_new <= len(only_new) and count <= SIGNATURES:
            sizes.append(sum(both[:shared]) + sum(only_old[:for_old]) + sum(only_new[:for_new]))
    if not sizes:
        raise InputError(f"keys: this step takes more than {SIGNATURES} signatures; exchange fewer keys at a time")
    size = _FRAME + len(encode(after)) + min(sizes)
    if size > LIMITS.MANIFEST_BYTES:
        raise InputError(
            f"keys: this step takes an envelope of {size} bytes with its signatures, of at most"
            f" {LIMITS.MANIFEST_BYTES}; exchange fewer keys at a time, or for smaller ones"
        )
