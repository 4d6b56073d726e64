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

from edgeagent import clock
from edgeagent.compat import Any, read_file
from edgeagent.errors import ConfigError, UpdateError
from edgeagent.ota import ecdsa, manifest


class Trust:
    """threshold: signatures needed; keys: {8-byte id: 64-byte public point}; floor: least security version."""

    def __init__(self, data: "Any") -> None:
        """data: the decoded trust file. Raises ValueError naming the member."""
        data = json.loads(json.dumps(data))  # a copy: `take` empties it
        keys = manifest.take(data, "keys", list, 1, 8)
        self.keys: "dict[bytes, bytes]" = {}
        for key in keys:
            public = manifest.take(key, "public", bytes, 64, 64)
            key_id = hashlib.sha256(public).digest()[:8]
            if manifest.take(key, "id", bytes, 8, 8) != key_id or key_id in self.keys:
                raise ValueError("id")
            if key.get("algorithm") != "ecdsa-p256":
                raise ValueError("algorithm")
            self.keys[key_id] = public
        self.threshold: int = manifest.take(data, "threshold", int, 1, len(keys))
        data.setdefault("security_version_floor", 0)
        self.floor: int = manifest.take(data, "security_version_floor", int, 0, 1 << 30)


def load_trust(path: "str | None") -> Trust:
    """Read the trust file. Raises ConfigError; UpdateError "no-trust" if none is configured."""
    if not path:
        raise UpdateError("no-trust", "none configured")
    try:
        return Trust(json.loads((read_file(path, 4096) or b"").decode()))
    except ValueError as error:
        raise ConfigError(path, str(error)) from None


async def open_envelope(raw: "bytes | bytearray", trust: Trust) -> "tuple[manifest.Manifest, str]":
    """The manifest of an envelope signed by at least `threshold` trusted keys, and its SHA-256 as hex.

    The manifest's JSON is not looked at before the signatures hold. Unknown keys and algorithms count for nothing.
    Raises UpdateError "envelope", "signature" or "manifest".
    """
    text, signatures = manifest.parse_envelope(raw)
    digest = hashlib.sha256(text).digest()
    good = []
    for key_id, algorithm, signature in signatures:
        public = trust.keys.get(key_id)
        # A key whose signature was good once is not asked again: one key cannot count twice.
        if (
            public
            and algorithm == manifest.ECDSA_P256
            and key_id not in good
            and await ecdsa.verify(public, digest, signature)
        ):
            good.append(key_id)
    if len(good) < trust.threshold:
        raise UpdateError("signature", "%d valid, %d needed" % (len(good), trust.threshold))
    return manifest.parse_manifest(text), binascii.hexlify(digest).decode()


def check(info: "manifest.Manifest", facts: "dict[str, Any]", running: "str | None", floor: int) -> None:
    """Refuse what is not for this device, now.

    info: of a verified envelope.
    facts: Port.facts(), of which board and runtime ("micropython 1.29.0") count. running: version that runs.
    floor: least security version.
    Raises UpdateError "board", "runtime", "abi", "expired", "security-version" or "same-version", with the artifact's
    own value.
    """
    abi = getattr(sys.implementation, "_mpy", 0) & 0xFF
    now = clock.now()
    late = info.expires and now > 1704067200 and now > info.expires  # before 2024 the clock was never set
    for code, bad, value in (
        ("board", facts["board"] not in info.boards and "*" not in info.boards, info.boards),
        ("runtime", info.runtime not in ("any", facts["runtime"].split(" ")[0]), info.runtime),
        ("abi", abi and info.mpy not in (None, abi), info.mpy),
        ("expired", late, info.expires),
        ("security-version", info.security_version < floor, info.security_version),
        ("same-version", info.version == running, running),
    ):
        if bad:
            raise UpdateError(code, str(value))
