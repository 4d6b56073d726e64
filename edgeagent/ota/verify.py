# SPDX-License-Identifier: Apache-2.0
"""Who may publish an update, and whether an update is for this device. Every refusal is an UpdateError; docs/ota.md.

Trust file: {"threshold": k, "keys": [{"id": 16 hex, "algorithm": "ecdsa-p256", "public": 128 hex, x||y}],
"security_version_floor": n}. A key's id is the first 8 bytes of the SHA-256 of its public point, so an id cannot be
bent to another key and k signatures are k distinct keys.
"""

import binascii
import hashlib
import json
import sys

from edgeagent import clock, compat
from edgeagent.compat import Any, const
from edgeagent.errors import ConfigError, UpdateError
from edgeagent.ota import ecdsa
from edgeagent.ota.manifest import ECDSA_P256, Manifest, parse_envelope, parse_manifest

_TRUST_BYTES = const(4096)
_KEYS = const(8)
_CLOCK_SET = const(1704067200)  # 2024-01-01: an earlier time means that the clock was never set


class Trust:
    """threshold: signatures needed; keys: {8-byte id: 64-byte public point}; floor: least security version."""

    def __init__(self, data: "Any", source: str = "trust.json") -> None:
        """data: the decoded trust file. Raises ConfigError naming the member."""

        def need(good: object, field: str, problem: str) -> None:
            if not good:
                raise ConfigError("%s: %s" % (source, field), problem)

        def number(field: str, value: "Any", low: int, high: int) -> int:
            need(type(value) is int and low <= value <= high, field, "must be %d to %d" % (low, high))
            return int(value)

        need(isinstance(data, dict), "trust", "must be an object")
        keys = data.get("keys")
        need(isinstance(keys, list) and 0 < len(keys) <= _KEYS, "keys", "must list 1 to %d keys" % _KEYS)
        self.keys: "dict[bytes, bytes]" = {}
        for n, key in enumerate(keys):
            field = "keys[%d]" % n
            need(isinstance(key, dict), field, "must be an object")
            need(key.get("algorithm") == "ecdsa-p256", field + ".algorithm", "must be ecdsa-p256")
            try:
                public = binascii.unhexlify(key["public"])
            except (ValueError, TypeError, KeyError):
                public = b""
            need(len(public) == 64, field + ".public", "must be 128 hex digits")
            key_id = hashlib.sha256(public).digest()[:8]
            need(key.get("id") == binascii.hexlify(key_id).decode(), field + ".id", "is not the id of this key")
            self.keys[key_id] = public
        need(len(self.keys) == len(keys), "keys", "has one key twice")
        self.threshold = number("threshold", data.get("threshold"), 1, len(keys))
        self.floor = number("security_version_floor", data.get("security_version_floor", 0), 0, 1 << 30)


def load_trust(path: "str | None") -> Trust:
    """Read the trust file. Raises ConfigError; UpdateError "no-trust" if none is configured."""
    if not path:
        raise UpdateError("no-trust", "no trust file is configured")
    try:
        return Trust(json.loads((compat.read_file(path, _TRUST_BYTES) or b"").decode()), path)
    except ValueError:
        raise ConfigError(path, "is missing, over %d bytes, or not JSON" % _TRUST_BYTES) from None


async def open_envelope(raw: "bytes | bytearray", trust: Trust) -> "tuple[Manifest, str]":
    """The manifest of an envelope signed by at least `threshold` trusted keys, and its SHA-256 as hex.

    The manifest's JSON is not looked at before the signatures hold. Unknown keys and algorithms count for nothing.
    Raises UpdateError "envelope", "signature" or "manifest".
    """
    manifest, signatures = parse_envelope(raw)
    digest = hashlib.sha256(manifest).digest()
    good = []
    for key_id, algorithm, signature in signatures:
        public = trust.keys.get(key_id)
        # A key whose signature was good once is not asked again: one key cannot count twice.
        if public and algorithm == ECDSA_P256 and key_id not in good and await ecdsa.verify(public, digest, signature):
            good.append(key_id)
    if len(good) < trust.threshold:
        raise UpdateError("signature", "%d valid, %d needed" % (len(good), trust.threshold))
    return parse_manifest(manifest), binascii.hexlify(digest).decode()


def check(manifest: Manifest, facts: "dict[str, Any]", running: "str | None", floor: int) -> None:
    """Refuse what is not for this device, now.

    facts: Port.facts(), of which board and runtime ("micropython 1.29.0") count. running: version that runs.
    floor: least security version.
    Raises UpdateError "board", "runtime", "abi", "expired", "security-version" or "same-version".
    """
    board = facts.get("board")
    runtime = str(facts.get("runtime")).split(" ")[0]
    abi = getattr(sys.implementation, "_mpy", 0) & 0xFF
    now = clock.now()
    if board not in manifest.boards and "*" not in manifest.boards:
        raise UpdateError("board", "for %s, this is %s" % (", ".join(manifest.boards), board))
    if manifest.runtime not in ("any", runtime):
        raise UpdateError("runtime", "for %s, this is %s" % (manifest.runtime, runtime))
    if abi and manifest.mpy not in (None, abi):
        raise UpdateError("abi", ".mpy version %s, this firmware loads %d" % (manifest.mpy, abi))
    if manifest.expires and now > _CLOCK_SET and now > manifest.expires:
        raise UpdateError("expired", "%d seconds ago" % (now - manifest.expires))
    if manifest.security_version < floor:
        raise UpdateError("security-version", "%d is below %d" % (manifest.security_version, floor))
    if manifest.version == running:
        raise UpdateError("same-version", "%s is running" % running)
