# SPDX-License-Identifier: Apache-2.0
"""P-256 signing keys, signatures over an artifact's manifest, and the trust file that devices hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from edgeagent.ota.manifest import ECDSA_P256
from edgefleet.artifacts.build import Artifact, sha256
from edgefleet.errors import InputError


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    """x||y, 64 bytes."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)[1:]


def key_id(public: bytes) -> bytes:
    """First 8 bytes of the SHA-256 of the public point."""
    return bytes.fromhex(sha256(public))[:8]


def generate_key(path: Path) -> bytes:
    """Make a key and store it as PEM, mode 0600. Returns its id. Raises InputError if the file exists."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise InputError(f"{path}: exists already; a signing key is never overwritten") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return key_id(point(key.public_key()))


def load_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """Raises InputError if the file is not a P-256 private key in PEM."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path}: is not a private key in PEM without password ({type(error).__name__})") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputError(f"{path}: is not a P-256 key")
    return key


def load_public(path: Path) -> ec.EllipticCurvePublicKey:
    """The public half of a PEM file that holds either. Raises InputError."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        return load_private(path).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputError(f"{path}: is not a P-256 key")
    return key


def sign(artifact: Artifact, key_path: Path) -> Artifact:
    """Add this key's signature to the artifact, which is returned. Deterministic (RFC 6979): reproducible too."""
    key = load_private(key_path)
    der = key.sign(artifact.manifest, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(der)
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    artifact.add_signature(key_id(point(key.public_key())), ECDSA_P256, signature)
    return artifact


def trust_document(keys: Sequence[Path], threshold: int = 1, security_version_floor: int = 0) -> dict[str, Any]:
    """The trust file of devices that accept `threshold` of these keys (PEM files, private or public)."""
    points = [point(load_public(path)) for path in keys]
    if len(set(points)) != len(points):
        raise InputError("keys: the same key is given twice")
    if not 1 <= threshold <= len(points) <= 8:
        raise InputError(f"threshold: must be 1 to the number of keys ({len(points)}), of at most 8 keys")
    return {
        "threshold": threshold,
        "keys": [{"id": key_id(p).hex(), "algorithm": "ecdsa-p256", "public": p.hex()} for p in points],
        "security_version_floor": security_version_floor,
    }


def valid_signers(artifact: Artifact, keys: Mapping[bytes, bytes]) -> list[str]:
    """Ids of the trusted keys whose signatures hold, by `cryptography`: independent of the device's own verifier.

    keys: {8-byte id: 64-byte public point}.
    """
    good = []
    for signer, algorithm, signature in artifact.signatures:
        public = keys.get(signer)
        if public is None or algorithm != ECDSA_P256 or len(signature) != 64:
            continue
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
            key.verify(der, artifact.manifest, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):  # ValueError: not a point of the curve
            continue
        good.append(signer.hex())
    return good
