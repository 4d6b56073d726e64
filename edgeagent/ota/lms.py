# SPDX-License-Identifier: Apache-2.0
"""LMS/HSS signature verification with SHA-256 (RFC 8554), cooperative. Hashes only, so post-quantum.

LM-OTS N32 W1 to W8, LMS M32 H5 to H25, up to three HSS levels. Between two yields: at most 64 hashes of at most 87
bytes, and the some 35 simple bytecodes that each of at most 265 digits takes.
"""

import asyncio
import hashlib


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _hash(data: "bytes | bytearray") -> bytes:
    return hashlib.sha256(data).digest()


async def verify(public: bytes, digest: bytes, signature: bytes) -> bool:
    """True if `signature` is the key's signature over `digest`.

    public: HSS public key, 60 bytes: u32 levels, u32 LMS type, u32 LM-OTS type, 16 bytes I, 32 bytes root.
    digest: the message, any bytes. signature: HSS signature. False for anything else, malformed input included.
    """
    levels = _u32(public, 0)
    if len(public) != 60 or not 0 < levels < 4 or _u32(signature, 0) != levels - 1:
        return False
    key = public[4:]
    at = 4
    done = 0  # hashes
    while levels:
        levels -= 1
        kind = _u32(key, 0)
        ots = _u32(key, 4)
        if not (4 < kind < 10 and 0 < ots < 5):
            return False
        height = 5 * kind - 20
        width = 1 << ots - 1  # bits of a digit
        top = (1 << width) - 1
        digits = (265, 133, 67, 34)[ots - 1]
        path = at + 40 + 32 * digits  # q, type, C, y
        end = path + 4 + 32 * height
        message = digest
        if levels:
            message = signature[end : end + 56]
        leaf = _u32(signature, at)
        # A cut end leaves wrong types or an `at` that is not the end.
        if end > len(signature) or _u32(signature, at + 4) != ots or _u32(signature, path) != kind or leaf >> height:
            return False
        prefix = key[8:24] + signature[at : at + 4]
        value = _hash(prefix + b"\x81\x81" + signature[at + 8 : at + 40] + message)
        number = int.from_bytes(value, "big")
        total = 0
        for shift in range(0, 256, width):
            total += top - (number >> shift & top)
        # Digits from the highest: those of the hash, then of the checksum, two bytes shifted up by the type's `ls`.
        number = number << 16 | total << (7, 6, 4, 0)[ots - 1]
        await asyncio.sleep(0)
        root = hashlib.sha256(prefix + b"\x80\x80")
        chain = bytearray(prefix + bytes(35))  # prefix, u16 digit, u8 step, 32 bytes
        at += 40
        for digit in range(digits):
            chain[20] = digit >> 8
            chain[21] = digit & 255
            chain[23:] = signature[at : at + 32]
            at += 32
            for step in range(number >> (272 - width - digit * width) & top, top):
                chain[22] = step
                chain[23:] = _hash(chain)
                done += 1
                if not done & 63:
                    await asyncio.sleep(0)
            root.update(chain[23:])
        await asyncio.sleep(0)
        leaf |= 1 << height
        prefix = key[8:24]
        value = _hash(prefix + leaf.to_bytes(4, "big") + b"\x82\x82" + root.digest())
        at += 4
        while leaf > 1:
            node = signature[at : at + 32]
            at += 32
            value = node + value if leaf & 1 else value + node
            leaf >>= 1
            value = _hash(prefix + leaf.to_bytes(4, "big") + b"\x83\x83" + value)
        if value != key[24:]:
            return False
        key = message
        if levels:
            at += 56
        await asyncio.sleep(0)
    return at == len(signature)
