# SPDX-License-Identifier: Apache-2.0
"""ECDSA P-256 signature verification with plain integers, cooperative: no slice over some 20 ms on an ESP32.

Source: FIPS 186-5 section 6.4.2; SEC 1 v2 section 4.1.4. Public data only, so nothing needs to be constant-time.
MicroPython has no asymmetric primitives (micropython.md finding 10) and no three-argument pow with a negative power,
hence the Euclidean inverse. Points are Jacobian (x = X/Z², y = Y/Z³); Z = 0 is the point at infinity.
"""

import asyncio

_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_GX = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
_GY = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5


async def _inverse(a: int, m: int) -> int:
    r0, r1, s0, s1 = m, a % m, 0, 1
    steps = 0
    while r1:
        q = r0 // r1
        r0, r1 = r1, r0 - q * r1
        s0, s1 = s1, s0 - q * s1
        steps += 1
        if not steps & 31:
            await asyncio.sleep(0)
    return s0 % m


def _double(x: int, y: int, z: int) -> "tuple[int, int, int]":
    if not z:
        return 0, 1, 0
    d = z * z % _P
    g = y * y % _P
    b = x * g % _P
    a = 3 * (x - d) * (x + d) % _P
    x = (a * a - 8 * b) % _P
    z = 2 * y * z % _P
    return x, (a * (4 * b - x) - 8 * g * g) % _P, z


def _add(x: int, y: int, z: int, x2: int, y2: int) -> "tuple[int, int, int]":
    """Jacobian + affine. Equal points double, opposite ones give infinity."""
    if not z:
        return x2, y2, 1
    zz = z * z % _P
    h = (x2 * zz - x) % _P
    r = (y2 * zz * z - y) % _P
    if not h:
        return (0, 1, 0) if r else _double(x, y, z)
    hh = h * h % _P
    hhh = hh * h % _P
    v = x * hh % _P
    x = (r * r - hhh - 2 * v) % _P
    return x, (r * (v - x) - y * hhh) % _P, z * h % _P


async def verify(public: bytes, digest: bytes, signature: bytes) -> bool:
    """True if `signature` is the key's signature over `digest`.

    public: x||y, 64 bytes. digest: SHA-256 of the message, 32 bytes. signature: r||s, 64 bytes, big-endian.
    False for anything else, malformed input included. Yields to other tasks every four bits.
    """
    if len(public) != 64 or len(digest) != 32 or len(signature) != 64:
        return False
    qx = int.from_bytes(public[:32], "big")
    qy = int.from_bytes(public[32:], "big")
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not (0 < r < _N and 0 < s < _N and qx < _P and qy < _P) or (qy * qy - (qx * qx * qx - 3 * qx + _B)) % _P:
        return False
    w = await _inverse(s, _N)
    u = (int.from_bytes(digest, "big") * w % _N).to_bytes(32, "big")
    v = (r * w % _N).to_bytes(32, "big")
    # G, Q and G+Q in affine form; G+Q is infinity if Q = -G and then adds nothing.
    x, y, z = _add(qx, qy, 1, _GX, _GY)
    both = None
    if z:
        i = await _inverse(z, _P)
        both = (x * i * i % _P, y * i * i * i % _P)
    table = (None, (_GX, _GY), (qx, qy), both)
    x, y, z = 0, 1, 0
    for n in range(32):
        for bit in range(7, -1, -1):
            x, y, z = _double(x, y, z)
            point = table[u[n] >> bit & 1 | (v[n] >> bit & 1) << 1]
            if point:
                x, y, z = _add(x, y, z, point[0], point[1])
            if not bit & 3:
                await asyncio.sleep(0)
    if not z:
        return False
    # x/z² ≡ r (mod n): the affine x is below p, so it is r or r + n.
    zz = z * z % _P
    return (r * zz - x) % _P == 0 or (r + _N < _P and ((r + _N) * zz - x) % _P == 0)
