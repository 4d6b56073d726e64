# SPDX-License-Identifier: Apache-2.0
"""A second opinion on artifacts and rotations: framing, hashes and signatures without the device's own code.

ECDSA and RSA by `cryptography`, LMS by pyhsslms. `both` runs the device's verifier too: the two must agree.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from edgeagent.errors import UpdateError
from edgeagent.ota import verify as device
from edgefleet.artifacts.build import Artifact
from edgefleet.artifacts.rotation import Rotation
from edgefleet.errors import InputError

NAMES = {1: "ecdsa-p256", 2: "rsa-sha256", 3: "lms-sha256"}


@dataclass(frozen=True)
class Signature:
    """One of an envelope. state: "valid", "invalid", "unknown key", "not checked" (no library for it)."""

    key: str
    algorithm: str
    state: str


def split(raw: bytes) -> tuple[bytes, list[tuple[str, int, bytes]]]:
    """(text, [(key id as hex, algorithm, signature)]) of an envelope. Raises InputError."""
    try:
        magic, size = struct.unpack_from(">4sH", raw)
        text = raw[6 : 6 + size]
        at = 7 + size
        found = []
        for _ in range(raw[at - 1]):
            key, algorithm, length = struct.unpack_from(">8sBH", raw, at)
            found.append((key.hex(), algorithm, raw[at + 11 : at + 11 + length]))
            at += 11 + length
    except (struct.error, IndexError):
        raise InputError("envelope: is cut short") from None
    if magic != b"EAM1" or at != len(raw) or at > 4096:
        raise InputError("envelope: is not EAM1, or has more than 4096 bytes, or bytes after its end")
    return text, found


def signatures(raw: bytes, trust: Mapping[str, Any]) -> list[Signature]:
    """Each signature of an envelope, judged against the keys of a trust file (decoded). Raises InputError."""
    text, found = split(raw)
    digest = hashlib.sha256(text).digest()
    keys = {entry["id"].lower(): entry for entry in trust["keys"]}
    result = []
    for key, algorithm, signature in found:
        entry = keys.get(key)
        state = "unknown key"
        if entry:
            public = bytes.fromhex(entry["public"])
            trusted = hashlib.sha256(public).hexdigest()[:16] == key and entry["algorithm"] == NAMES.get(algorithm)
            state = _judge(algorithm, public, digest, signature) if trusted else "invalid"
        result.append(Signature(key, NAMES.get(algorithm, str(algorithm)), state))
    return result


def _judge(algorithm: int, public: bytes, digest: bytes, signature: bytes) -> str:
    prehashed = Prehashed(hashes.SHA256())
    try:
        if algorithm == 1:
            if len(signature) != 64:
                return "invalid"
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            point.verify(encode_dss_signature(r, s), digest, ec.ECDSA(prehashed))
        elif algorithm == 2:
            modulus = rsa.RSAPublicNumbers(65537, int.from_bytes(public, "big")).public_key()
            modulus.verify(signature, digest, padding.PKCS1v15(), prehashed)
        else:
            try:
                from pyhsslms import pyhsslms
            except ImportError:
                return "not checked"
            if not pyhsslms.HssPublicKey.deserialize(public).verify(digest, signature):
                return "invalid"
    except (InvalidSignature, ValueError, IndexError):  # ValueError: not a point of the curve, no key of this kind
        return "invalid"
    return "valid"


def check_content(artifact: Artifact) -> None:
    """Sizes and hashes of payload, blocks and files against the manifest. Raises InputError naming what differs."""
    manifest = json.loads(artifact.manifest)
    payload = manifest["payload"]
    hashed = [hashlib.sha256(artifact.payload[at : at + 4096]).digest() for at in range(0, payload["size"], 4096)]
    at = 0
    for entry in manifest["files"]:
        hashed.append(hashlib.sha256(artifact.payload[at : at + entry[1]]).digest())
        at += entry[1]
    for name, good in (
        ("size", at == payload["size"] == len(artifact.payload)),
        ("sha256", hashlib.sha256(artifact.payload).hexdigest() == payload["sha256"]),
        ("blocks", b"".join(hashed) == artifact.blocks),
        ("blocks_sha256", hashlib.sha256(artifact.blocks).hexdigest() == payload["blocks_sha256"]),
    ):
        if not good:
            raise InputError(f"payload: {name} is not that of the manifest")


def valid(raw: bytes, trust: Mapping[str, Any]) -> list[str]:
    """Ids of the distinct trusted keys whose signatures hold."""
    return sorted({one.key for one in signatures(raw, trust) if one.state == "valid"})


def both(document: Artifact | Rotation, trust: Mapping[str, Any]) -> list[str]:
    """The ids of the keys that signed for `trust`, by this module and by the device's own code.

    Of a rotation: those of the trust file in force; enough keys of the new one must have signed as well.
    Raises InputError saying what is missing, or that the two verifiers disagree.
    """
    raw = document.envelope
    sides: list[tuple[str, Mapping[str, Any]]] = [("trust file", trust)]
    if isinstance(document, Artifact):
        check_content(document)
    else:
        document.check_follows(dict(trust))
        sides.append(("new keys", json.loads(document.text)))
    for name, side in sides:
        judged = signatures(raw, side)
        known = device.Trust(dict(side))
        unchecked = [one for one in judged if one.state == "not checked"]
        ours = len(valid(raw, side))
        try:
            asyncio.run(device.demand(document.text, document.signatures, known))
            refused = ""
        except UpdateError as error:
            refused = str(error)
        if (ours < known.threshold) != bool(refused) and not unchecked:
            raise InputError(f"{name}: the two verifiers disagree ({ours} valid; {refused}); report this as a defect")
        if refused:
            raise InputError(f"{refused} ({name})")
    if isinstance(document, Artifact):
        try:
            asyncio.run(device.open_envelope(raw, device.Trust(dict(trust))))
        except UpdateError as error:
            raise InputError(str(error)) from None
    return valid(raw, trust)
