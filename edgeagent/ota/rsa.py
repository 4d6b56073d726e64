# SPDX-License-Identifier: Apache-2.0
"""RSA signature verification, PKCS#1 v1.5 with SHA-256, exponent 65537, keys of 2048, 3072 or 4096 bits; cooperative.

Source: RFC 8017 sections 8.2.2 and 9.2. The padding is built and compared whole, never parsed: what a forger gains
from a lax parser (Bleichenbacher 2006) is not there.
Between two yields: one multiplication modulo the key; 17 in all. tests/device/test_verify_slices.py counts.
"""

import asyncio

# DER of DigestInfo up to the hash itself (RFC 8017 section 9.2, note 1).
_SHA256 = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"


async def verify(public: bytes, digest: bytes, signature: bytes) -> bool:
    """True if `signature` is the key's signature over `digest`.

    public: the modulus, 256, 384 or 512 bytes, big-endian, its highest bit set. digest: SHA-256 of the message.
    signature: as many bytes as the modulus. False for anything else.
    """
    size = len(public)
    if size not in (256, 384, 512) or public[0] < 128 or len(signature) != size or len(digest) != 32:
        return False
    n = int.from_bytes(public, "big")
    s = x = int.from_bytes(signature, "big")
    if s >= n:
        return False
    for _ in range(16):
        x = x * x % n
        await asyncio.sleep(0)
    padding = b"\xff" * (size - 54)
    return (x * s % n).to_bytes(size, "big") == b"\x00\x01" + padding + b"\x00" + _SHA256 + digest
