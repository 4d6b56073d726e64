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
from edgeagent.compat import const
from edgeagent.errors import ConfigError, UpdateError
from edgeagent.ota import ecdsa
from edgeagent.ota.manifest import ECDSA_P256, Manifest, parse_envelope

_TRUST_BYTES = const(4096)
_MAX_KEYS = const(8)
_CLOCK_SET = const(1704067200)  # 2024-01-01: an earlier time means that the clock was never set


class Trust:
    """threshold: signatures needed; keys: {8-byte id: 64-byte public point}; floor: least security version."""

    def __init__(self, data: object, source: str = "trust.json") -> None:
        """data: the decoded trust file. Raises ConfigError naming the member."""
        self._source = source
        if not isinstance(data, dict):
            raise ConfigError(source, "must hold a JSON object")
        keys = data.get("keys")
        if not isinstance(keys, list) or not 0 < len(keys) <= _MAX_KEYS:
            raise self._error("keys", "must list 1 to %d keys" % _MAX_KEYS)
        self.keys: "dict[bytes, bytes]" = {}
        for n, key in enumerate(keys):
            self._add("keys[%d]" % n, key)
        self.threshold = self._int(data, "threshold", 1, len(keys))
        self.floor = self._int(data, "security_version_floor", 0, 1 << 30) if "security_version_floor" in data else 0

    def _error(self, field: str, problem: str) -> ConfigError:
        return ConfigError("%s: %s" % (self._source, field), problem)

    def _int(self, data: dict, field: str, low: int, high: int) -> int:
        value = data.get(field)
        if type(value) is not int or not low <= value <= high:
            raise self._error(field, "must be a whole number from %d to %d" % (low, high))
        return value

    def _add(self, field: str, key: object) -> None:
        if not isinstance(key, dict):
            raise self._error(field, "must be an object")
        if key.get("algorithm") != "ecdsa-p256":
            raise self._error(field + ".algorithm", "must be ecdsa-p256")
        try:
            public = binascii.unhexlify(key.get("public"))
        except (ValueError, TypeError):
            public = b""
        if len(public) != 64:
            raise self._error(field + ".public", "must be 128 hex digits")
        key_id = hashlib.sha256(public).digest()[:8]
        if key.get("id") != binascii.hexlify(key_id).decode():
            raise self._error(field + ".id", "is not the id of this key")
        if key_id in self.keys:
            raise self._error(field, "is listed twice")
        self.keys[key_id] = public


def load_trust(path: "str | None") -> Trust:
    """Read the trust file. Raises ConfigError; UpdateError "no-trust" if none is configured."""
    if not path:
        raise UpdateError("no-trust", "no trust file is configured")
    raw = compat.read_file(path, _TRUST_BYTES)
    if raw is None:
        raise ConfigError(path, "is missing or larger than %d bytes" % _TRUST_BYTES)
    try:
        data = json.loads(raw.decode())
    except ValueError:
        raise ConfigError(path, "is not valid JSON") from None
    return Trust(data, path)


async def open_envelope(raw: bytes, trust: Trust) -> "tuple[Manifest, str]":
    """The manifest of an envelope signed by at least `threshold` trusted keys, and its SHA-256 as hex.

    The manifest's JSON is not looked at before the signatures hold. Unknown keys and algorithms count for nothing.
    Raises UpdateError "envelope", "signature" or "manifest".
    """
    manifest, signatures = parse_envelope(raw)
    digest = hashlib.sha256(manifest).digest()
    good = []
    for key_id, algorithm, signature in signatures:
        public = trust.keys.get(key_id)
        if public and algorithm == ECDSA_P256 and key_id not in good and await ecdsa.verify(public, digest, signature):
            good.append(key_id)
    if len(good) < trust.threshold:
        raise UpdateError("signature", "%d of %d needed signatures are valid" % (len(good), trust.threshold))
    return Manifest(manifest), binascii.hexlify(digest).decode()


def check(manifest: Manifest, facts: dict, running: "str | None", floor: int) -> None:
    """Refuse what is not for this device, now.

    facts: Port.facts(), of which board and runtime count. running: version that runs. floor: least security version.
    Raises UpdateError "board", "runtime", "abi", "expired", "security-version" or "same-version".
    """
    board = facts.get("board")
    if board not in manifest.boards:
        raise UpdateError("board", "is for %s, this is %s" % (", ".join(manifest.boards), board))
    if manifest.runtime not in ("any", facts.get("runtime")):
        raise UpdateError("runtime", "needs %s, this is %s" % (manifest.runtime, facts.get("runtime")))
    if compat.MICROPYTHON and manifest.mpy is not None:
        abi = sys.implementation._mpy & 0xFF  # type: ignore[attr-defined]
        if manifest.mpy != abi:
            raise UpdateError("abi", "has .mpy version %d, this firmware loads %d" % (manifest.mpy, abi))
    now = clock.now()
    if manifest.expires is not None and _CLOCK_SET < now and manifest.expires < now:
        raise UpdateError("expired", "expired %d seconds ago" % (now - manifest.expires))
    if manifest.security_version < floor:
        raise UpdateError("security-version", "%d is below %d" % (manifest.security_version, floor))
    if running is not None and manifest.version == running:
        raise UpdateError("same-version", "%s is already running" % running)
