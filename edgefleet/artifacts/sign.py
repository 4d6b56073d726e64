# SPDX-License-Identifier: Apache-2.0
"""Signing keys (ECDSA P-256, RSA, LMS), signatures over manifests and trust documents, and the documents themselves.

What is signed is the SHA-256 of the exact bytes. LMS keys and their ledger: lms_key.py. Checking: verify.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from edgeagent.ota.verify import ALGORITHMS
from edgefleet.artifacts import lms_key, room
from edgefleet.artifacts.build import Signed, sha256
from edgefleet.errors import InputError

KINDS = ("ecdsa-p256", "rsa-3072", "lms-h10")
_RSA_BITS = (2048, 3072, 4096)
Document = TypeVar("Document", bound=Signed)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | lms_key.LmsKey


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    """x||y, 64 bytes."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)[1:]


def key_id(public: bytes) -> bytes:
    """First 8 bytes of the SHA-256 of the public bytes."""
    return bytes.fromhex(sha256(public))[:8]


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Make a file durable; an existing one is never overwritten. Raises InputError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    except FileExistsError:
        raise InputError(f"{path}: exists already; a signing key is never overwritten") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def generate_key(path: Path, kind: str = "ecdsa-p256") -> bytes:
    """Make a key and store it, mode 0600, and beside it `PATH.pub` for an LMS key. Returns its id.

    kind: one of KINDS, or "rsa-2048", "rsa-4096", "lms-h5", "lms-h15". Raises InputError if the file exists.
    """
    if kind.startswith("lms-"):
        key = lms_key.generate(path, kind, write_new)
        write_new(Path(f"{path}.pub"), (json.dumps(_entry(3, key.public)) + "\n").encode(), 0o644)
        return key_id(key.public)
    made: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if kind == "ecdsa-p256":
        made = ec.generate_private_key(ec.SECP256R1())
    elif kind in [f"rsa-{bits}" for bits in _RSA_BITS]:
        made = rsa.generate_private_key(65537, int(kind[4:]))
    else:
        raise InputError(f"{kind}: must be one of {', '.join(KINDS)}")
    plain = serialization.NoEncryption()
    write_new(path, made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return key_id(_public_bytes(path, made)[1])


def _public_bytes(path: Path, key: Any) -> tuple[int, bytes]:
    """(algorithm from 1, public bytes as a trust file has them) of a key object. Raises InputError."""
    if isinstance(key, lms_key.LmsKey):
        return 3, key.public
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        key = key.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return 1, point(key)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        numbers = key.public_numbers()
        if numbers.e == 65537:
            return 2, numbers.n.to_bytes(key.key_size // 8, "big")
    raise InputError(f"{path}: is not a P-256 key, nor an RSA key of 2048, 3072 or 4096 bits with exponent 65537")


def load_private(path: Path) -> PrivateKey:
    """Raises InputError if the file is no private key of a known kind: PEM without password, or an LMS key."""
    try:
        data = path.read_bytes()
        if data.startswith(b"{"):
            return lms_key.LmsKey(path)
        key = serialization.load_pem_private_key(data, password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path}: is not a private key in PEM without password ({type(error).__name__})") from None
    _public_bytes(path, key)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def load_public(path: Path) -> tuple[int, bytes]:
    """(algorithm from 1, public bytes): of a PEM file with either half, an LMS key or its `.pub`. Raises InputError."""
    try:
        data = path.read_bytes()
        if data.startswith(b"{"):
            entry = json.loads(data)
            if "public" in entry:
                return ALGORITHMS.index(entry["algorithm"]) + 1, bytes.fromhex(entry["public"])
        key: Any = serialization.load_pem_public_key(data)
    except (OSError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        key = load_private(path)
    return _public_bytes(path, key)


def sign_text(text: bytes, key_path: Path) -> tuple[bytes, int, bytes]:
    """(key id, algorithm, signature) over bytes. ECDSA (RFC 6979) and RSA are reproducible; LMS uses up a leaf."""
    key = load_private(key_path)
    digest = bytes.fromhex(sha256(text))
    algorithm, public = _public_bytes(key_path, key)
    prehashed = Prehashed(hashes.SHA256())
    if isinstance(key, lms_key.LmsKey):
        signature = key.sign(digest)
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(digest, padding.PKCS1v15(), prehashed)
    else:
        r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(prehashed, deterministic_signing=True)))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return key_id(public), algorithm, signature


def sign(document: Document, key_path: Path) -> Document:
    """Add this key's signature to an artifact or a rotation, which is returned. Raises InputError."""
    document.add_signature(*sign_text(document.text, key_path))
    return document


def _entry(algorithm: int, public: bytes) -> dict[str, str]:
    return {"id": key_id(public).hex(), "algorithm": ALGORITHMS[algorithm - 1], "public": public.hex()}


def trust_document(
    keys: Sequence[Path],
    threshold: int = 1,
    security_version_floor: int = 0,
    version: int = 1,
    expires: int | None = None,
) -> dict[str, Any]:
    """The trust file of devices that accept `threshold` of these keys (files with either half). Raises InputError.

    version: counts up by one with each rotation. expires: epoch seconds after which devices accept nothing but the next
    version. Refused is also what could not be rotated later (room.py).
    """
    entries = [_entry(*load_public(path)) for path in keys]
    if len({entry["id"] for entry in entries}) != len(entries):
        raise InputError("keys: the same key is given twice")
    if not 1 <= threshold <= len(entries) <= 8:
        raise InputError(f"threshold: must be 1 to the number of keys ({len(entries)}), of at most 8 keys")
    document = {
        "version": version,
        "threshold": threshold,
        "keys": entries,
        "security_version_floor": security_version_floor,
    }
    if expires is not None:
        document["expires"] = expires
    room.check_next(document)
    return document
