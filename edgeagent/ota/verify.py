# SPDX-License-Identifier: Apache-2.0
"""Who may publish an update, and whether an update is for this device. Every refusal is an UpdateError; docs/ota.md.

Trust file: {"version": n, "threshold": k, "keys": [{"id": 16 hex, "algorithm": one of ALGORITHMS, "public": hex}],
"expires": epoch seconds or null, "security_version_floor": n}. A key's id is the first 8 bytes of the SHA-256 of its
public bytes, so an id cannot be bent to another key and k signatures are k distinct keys. What jobs/trust.py writes has
8 bytes of its own SHA-256 in front, and a second copy in FILE.bak.
"""

import asyncio
import binascii
import hashlib
import json
import sys

from edgeagent import clock
from edgeagent.compat import Any, read_file
from edgeagent.errors import ConfigError, UpdateError
from edgeagent.ota import manifest, trial

# Name in a trust file; the place, from 1, is the number in an envelope. Then the lengths of public keys.
ALGORITHMS = ("ecdsa-p256", "rsa-sha256", "lms-sha256")
_SIZES = ((64,), (256, 384, 512), (60,))
_VERSIONS = ("agent", "firmware", "runtime")  # facts that may also be later than an artifact requires


class Trust:
    """version; threshold: signatures needed; keys: {8-byte id: (algorithm from 1, public bytes)}; floor: least security
    version; expires: epoch seconds or 0; data: the decoded file.
    """

    def __init__(self, data: "Any") -> None:
        """data: the decoded trust file. Raises ValueError naming the member; an unknown one is refused."""
        self.data = data
        data = json.loads(json.dumps(data))  # a copy: `take` empties it
        keys = manifest.take(data, "keys", list, 1, 8)
        self.keys: "dict[bytes, tuple[int, bytes]]" = {}
        for key in keys:
            public = manifest.take(key, "public", bytes, 60, 512)
            key_id = hashlib.sha256(public).digest()[:8]
            if manifest.take(key, "id", bytes, 8, 8) != key_id or key_id in self.keys:
                raise ValueError("id")
            if key.get("algorithm") not in ALGORITHMS:
                raise ValueError("algorithm")
            algorithm = ALGORITHMS.index(key.pop("algorithm"))
            if len(public) not in _SIZES[algorithm]:
                raise ValueError("public")
            self.keys[key_id] = algorithm + 1, public
        self.threshold: int = manifest.take(data, "threshold", int, 1, len(keys))
        found = []
        for name, low in (("version", 1), ("security_version_floor", 0), ("expires", 0)):
            if data.get(name) is None:
                data[name] = low
            found.append(manifest.take(data, name, int, low, 1 << 40))
        self.version, self.floor, self.expires = found
        for left in keys + [data]:
            for name in left:
                raise ValueError(name)


def load_trust(path: "str | None") -> Trust:
    """The trust file, or its second copy if it is damaged; of the floors in them the higher one.

    Raises ConfigError; UpdateError "no-trust" if none is configured.
    """
    if not path:
        raise UpdateError("no-trust", "none configured")
    trust = None
    problem = ""
    for name in (path, path + ".bak"):
        raw = read_file(name, 8192) or b""
        try:
            found = Trust(json.loads((trial.unseal(raw) or raw).decode()))
            trust = trust or found
            trust.floor = max(trust.floor, found.floor)
        except ValueError as error:
            problem = problem or str(error)
    if not trust:
        raise ConfigError(path, problem)
    return trust


def late(expires: "int | None") -> bool:
    """True if the time is over, and the clock is set."""
    return bool(expires) and clock.now() > max(expires or 0, clock.SET)


async def demand(text: bytes, signatures: "Any", trust: Trust) -> None:
    """Enough distinct keys of `trust` must have signed `text`. signatures: as of parse_envelope.

    Unknown keys, and algorithms that are not the key's, count for nothing. Verifiers are loaded as they are needed.
    Raises UpdateError "signature" if none did, "threshold" if too few.
    """
    keys = trust.keys
    digest = hashlib.sha256(text).digest()
    good: "list[bytes]" = []
    for key_id, algorithm, signature in signatures:
        known, public = keys.get(key_id, (0, b""))
        # A key whose signature was good once is not asked again: one key cannot count twice.
        if known and known == algorithm and key_id not in good and await verify(known, public, digest, signature):
            good.append(key_id)
    if len(good) < trust.threshold:
        problem = "%d valid, %d needed of version %d" % (len(good), trust.threshold, trust.version)
        raise UpdateError("threshold" if good else "signature", problem)


async def verify(algorithm: int, public: bytes, digest: bytes, signature: bytes) -> bool:
    """algorithm: its place in ALGORITHMS, from 1."""
    module: Any
    if algorithm == 1:
        from edgeagent.ota import ecdsa as module
    elif algorithm == 2:
        from edgeagent.ota import rsa as module
    else:
        from edgeagent.ota import lms as module
    return await module.verify(public, digest, signature)  # type: ignore[no-any-return]


async def open_envelope(raw: "bytes | bytearray", trust: Trust) -> "tuple[manifest.Manifest, str]":
    """The manifest of an envelope signed by at least `threshold` trusted keys, and its SHA-256 as hex.

    The manifest's JSON is not looked at before the signatures hold.
    Raises UpdateError "trust-expired", "envelope", "signature", "threshold" or "manifest".
    """
    if late(trust.expires):
        raise UpdateError("trust-expired", str(trust.expires))
    text, signatures = manifest.parse_envelope(raw)
    await demand(text, signatures, trust)
    info = manifest.Manifest()
    for _ in manifest.read_manifest(text, info):
        await asyncio.sleep(0)
    return info, binascii.hexlify(hashlib.sha256(text).digest()).decode()


def before(one: "Any", two: "Any") -> "bool | None":
    """True if version `one` is before `two`, by the numbers of "2.1.0", "v2.1.0-rc1" or "micropython 2.1"; one with a
    "-" behind them is before the same without.

    None if one of them is another text: such versions have no order.
    """
    both: "list[tuple[list[int], bool]]" = []
    for text in (one, two):
        try:
            word, to, _ = str(text).split(" ")[-1].split("+")[0].partition("-")
            numbers = [int(part) for part in word.lstrip("v").split(".")]
        except ValueError:
            return None
        while numbers and not numbers[-1]:
            numbers.pop()
        both.append((numbers, not to))
    return both[0] < both[1]


def _made_for(boards: "list[str]", facts: "dict[str, Any]") -> bool:
    """True if one of NAME, NAME@2, NAME@2-3 and NAME@2- (hardware revisions) is this device, or "*"."""
    for entry in boards:
        name, at, revisions = entry.partition("@")
        if name in ("*", facts["board"]):
            if not at:
                return True
            low, to, high = revisions.partition("-")
            try:
                revision = int(facts.get("hardware", ""))
                if int(low) <= revision <= int(high or (1 << 30 if to else low)):
                    return True
            except (TypeError, ValueError):
                pass  # the device does not know its revision, or the entry is none
    return False


def check(info: "manifest.Manifest", facts: "dict[str, Any]", running: "str | None", floor: int) -> None:
    """Refuse what is not for this device, now.

    info: of a verified envelope.
    facts: Agent.facts() and the device's configuration, of which board, hardware and runtime ("micropython 1.29.0")
    count, and what the manifest requires. running: version that runs. floor: least security version.
    Raises UpdateError "board", "runtime", "requires", "abi", "expired", "security-version", "same-version" or
    "downgrade", with the artifact's own value.
    """
    abi = getattr(sys.implementation, "_mpy", 0) & 0xFF
    missing = ""
    for name, value in (info.requires or {}).items():
        have = facts.get(name)
        if value != have and (name not in _VERSIONS or before(have, value) is not False):
            missing = "%s %s, here %s" % (name, value, have)
    # Going back by permission: the floor stays where it is all the same. It expires, which takes a clock to see.
    allowed = running in (info.downgrade or ()) and clock.now() > clock.SET
    rules: "Any" = (
        ("board", not _made_for(info.boards, facts), info.boards),
        ("runtime", info.runtime not in ("any", facts["runtime"].split(" ")[0]), info.runtime),
        ("requires", missing, missing),
        ("abi", abi and info.mpy not in (None, abi), info.mpy),
        ("expired", late(info.expires), info.expires),
        ("security-version", info.security_version < floor and not allowed, info.security_version),
        ("same-version", info.version == running, running),
        ("downgrade", before(info.version, running) and not allowed, info.version),
    )
    for code, bad, value in rules:
        if bad:
            raise UpdateError(code, str(value))
