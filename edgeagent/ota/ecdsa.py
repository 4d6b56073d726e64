# SPDX-License-Identifier: Apache-2.0
"""ECDSA P-256 signature verification, cooperative.

Source: FIPS 186-5 section 6.4.2; SEC 1 v2 section 4.1.4. Public data only, so nothing needs to be constant-time.
Between two yields: at most 40 multiplications modulo p (two bits of the scalars) and 64 steps of Euclid's algorithm;
tests/device/test_verify_slices.py counts.
"""

import asyncio

from edgeagent.p256 import GX, GY, B, N, P, add, double, number


async def _inverse(a: int, m: int) -> int:
    """1/a modulo m, by Euclid: a third of the work of Fermat's power, and in slices."""
    x, y, u, v, step = a, m, 1, 0, 0
    while x > 1:
        q = y // x
        x, y, u, v = y - q * x, x, v - q * u, u
        step += 1
        if not step & 63:
            await asyncio.sleep(0)
    return u % m


async def verify(public: bytes, digest: bytes, signature: bytes) -> bool:
    """True if `signature` is the key's signature over `digest`.

    public: x||y, 64 bytes. digest: SHA-256 of the message, 32 bytes. signature: r||s, 64 bytes, big-endian.
    False for anything else, malformed input included.
    """
    if len(public) != 64 or len(digest) != 32 or len(signature) != 64:
        return False
    qx = number(public, 0)
    qy = number(public, 1)
    r = number(signature, 0)
    s = number(signature, 1)
    if not (0 < r < N and 0 < s < N and qx < P and qy < P) or (qy * qy - (qx * qx * qx - 3 * qx + B)) % P:
        return False
    s = await _inverse(s, N)
    u = number(digest, 0) * s % N
    v = r * s % N
    # G + Q, for bits that are set in both; z = 0 if Q is -G.
    gx, gy, gz = add(GX, GY, 1, qx, qy)
    if gz:
        z = await _inverse(gz, P)
        gx = gx * z * z % P
        gy = gy * z * z * z % P
    # u·G + v·Q, bit by bit from the highest.
    x = y = z = 0
    for bit in range(255, -1, -1):
        if z:
            x, y, z = double(x, y, z)
        if u >> bit & 1:
            if not v >> bit & 1:
                x, y, z = add(x, y, z, GX, GY)
            elif gz:
                x, y, z = add(x, y, z, gx, gy)
        elif v >> bit & 1:
            x, y, z = add(x, y, z, qx, qy)
        if not bit & 1:
            await asyncio.sleep(0)
    # x/z² ≡ r (mod n): the affine x is below p, so it is r or r + n.
    z = z * z % P
    return z > 0 and ((r * z - x) % P == 0 or (r + N < P and ((r + N) * z - x) % P == 0))
