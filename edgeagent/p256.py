# SPDX-License-Identifier: Apache-2.0
"""Points of the curve P-256 with plain integers, for verifying (ota/ecdsa.py) and signing (csr.py).

Points are Jacobian (x = X/Z², y = Y/Z³); Z = 0 is the point at infinity. MicroPython has no asymmetric primitives
(micropython.md finding 10) and no pow with a negative power, hence Fermat's inverse: one slice of some 0.1 s on an
ESP32.
"""

# The curve of SEC 2 section 2.4.2 in few bytes: bytecode holds an integer as decimal text.
_CURVE = (
    b"\xff\xff\xff\xff\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51"
    b"\x5a\xc6\x35\xd8\xaa\x3a\x93\xe7\xb3\xeb\xbd\x55\x76\x98\x86\xbc\x65\x1d\x06\xb0\xcc\x53\xb0\xf6\x3b\xce\x3c\x3e\x27\xd2\x60\x4b"
    b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96"
    b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5"
)


def number(data: bytes, at: int) -> int:
    return int.from_bytes(data[32 * at : 32 * at + 32], "big")


P = number(_CURVE, 0)
N = number(_CURVE, 1)
B = number(_CURVE, 2)
GX = number(_CURVE, 3)
GY = number(_CURVE, 4)


def double(x: int, y: int, z: int) -> "tuple[int, int, int]":
    d = z * z % P
    g = y * y % P
    b = x * g % P
    a = 3 * (x - d) * (x + d) % P
    x = (a * a - 8 * b) % P
    return x, (a * (4 * b - x) - 8 * g * g) % P, 2 * y * z % P


def add(x: int, y: int, z: int, x2: int, y2: int) -> "tuple[int, int, int]":
    """Jacobian + affine. Equal points double, opposite ones give infinity (h and so z is 0)."""
    if not z:
        return x2, y2, 1
    zz = z * z % P
    h = (x2 * zz - x) % P
    r = (y2 * zz * z - y) % P
    if not h and not r:
        return double(x, y, z)
    hh = h * h % P
    v = x * hh % P
    hh = hh * h % P
    x = (r * r - hh - 2 * v) % P
    return x, (r * (v - x) - y * hh) % P, z * h % P
