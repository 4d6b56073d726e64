# SPDX-License-Identifier: Apache-2.0
"""ECDSA P-256 signature verification with plain integers, cooperative: it yields every four bits.

Source: FIPS 186-5 section 6.4.2; SEC 1 v2 section 4.1.4. Public data only, so nothing needs to be constant-time.
MicroPython has no asymmetric primitives (micropython.md finding 10) and no pow with a negative power, hence Fermat's
inverse: one slice of some 0.1 s on an ESP32. Points are Jacobian (x = X/Z², y = Y/Z³); Z = 0 is the point at infinity.
"""

import asyncio

# The curve of SEC 2 section 2.4.2 in few bytes: bytecode holds an integer as decimal text.
_CURVE = (
    b"\xff\xff\xff\xff\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51"
    b"\x5a\xc6\x35\xd8\xaa\x3a\x93\xe7\xb3\xeb\xbd\x55\x76\x98\x86\xbc\x65\x1d\x06\xb0\xcc\x53\xb0\xf6\x3b\xce\x3c\x3e\x27\xd2\x60\x4b"
    b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96"
    b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5"
)


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[32 * at : 32 * at + 32], "big")


_P = _number(_CURVE, 0)
_N = _number(_CURVE, 1)
_B = _number(_CURVE, 2)
_GX = _number(_CURVE, 3)
_GY = _number(_CURVE, 4)


def _double(x: int, y: int, z: int) -> "tuple[int, int, int]":
    d = z * z % _P
    g = y * y % _P
    b = x * g % _P
    a = 3 * (x - d) * (x + d) % _P
    x = (a * a - 8 * b) % _P
    return x, (a * (4 * b - x) - 8 * g * g) % _P, 2 * y * z % _P


def _add(x: int, y: int, z: int, x2: int, y2: int) -> "tuple[int, int, int]":
    """Jacobian + affine. Equal points double, opposite ones give infinity (h and so z is 0)."""
    if not z:
        return x2, y2, 1
    zz = z * z % _P
    h = (x2 * zz - x) % _P
    r = (y2 * zz * z - y) % _P
    if not h and not r:
        return _double(x, y, z)
    hh = h * h % _P
    v = x * hh % _P
    hh = hh * h % _P
    x = (r * r - hh - 2 * v) % _P
    return x, (r * (v - x) - y * hh) % _P, z * h % _P


async def verify(public: bytes, digest: bytes, signature: bytes) -> bool:
    """True if `signature` is the key's signature over `digest`.

    public: x||y, 64 bytes. digest: SHA-256 of the message, 32 bytes. signature: r||s, 64 bytes, big-endian.
    False for anything else, malformed input included.
    """
    if len(public) != 64 or len(digest) != 32 or len(signature) != 64:
        return False
    qx = _number(public, 0)
    qy = _number(public, 1)
    r = _number(signature, 0)
    s = _number(signature, 1)
    if not (0 < r < _N and 0 < s < _N and qx < _P and qy < _P) or (qy * qy - (qx * qx * qx - 3 * qx + _B)) % _P:
        return False
    s = pow(s, _N - 2, _N)
    u = _number(digest, 0) * s % _N
    v = r * s % _N
    # u·G + v·Q, bit by bit from the highest.
    x = y = z = 0
    for bit in range(255, -1, -1):
        if z:
            x, y, z = _double(x, y, z)
        if u >> bit & 1:
            x, y, z = _add(x, y, z, _GX, _GY)
        if v >> bit & 1:
            x, y, z = _add(x, y, z, qx, qy)
        if not bit & 3:
            await asyncio.sleep(0)
    # x/z² ≡ r (mod n): the affine x is below p, so it is r or r + n.
    z = z * z % _P
    return z > 0 and ((r * z - x) % _P == 0 or (r + _N < _P and ((r + _N) * z - x) % _P == 0))
