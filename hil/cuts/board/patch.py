# SPDX-License-Identifier: Apache-2.0
"""Patches (docs/adr/0008-delta-format.md) made on both runtimes, without the differ and compressor of the fleet side.

The sums are made byte by byte and not as the decoder does them: what both agree on is the format.
"""

from edgeagent.ota import delta


def number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def stored(data):
    """Raw deflate without compression (RFC 1951, 3.2.4)."""
    out = bytearray()
    for at in range(0, len(data), 60000):
        part = data[at : at + 60000]
        size = len(part)
        out.extend(bytes([at + 60000 >= len(data), size & 255, size >> 8, ~size & 255, ~size >> 8 & 255]))
        out.extend(part)
    return bytes(out)


def squeezed(data):
    """Raw deflate with the fixed code (RFC 1951, 3.2.6), runs of zeros as copies."""
    out = bytearray()
    held, room = 3, 3  # last block, fixed code

    def put(code, count):
        nonlocal held, room
        for n in range(count):
            held |= (code >> count - 1 - n & 1) << room
            room += 1
            if room == 8:
                out.append(held)
                held = room = 0

    at = 0
    while at < len(data):
        if at and data[at - 1 : at + 258] == bytes(259):
            put(0xC5, 8)
            put(0, 5)
            at += 258
        else:
            put(*((0x30 + data[at], 8) if data[at] < 144 else (0x100 + data[at], 9)))
            at += 1
    put(0, 14)  # the end, and what is left of a byte
    return bytes(out)


def patch(old, new, records, ids, pack=stored):
    """records: (start in old, bytes to add, bytes to copy). The sums byte by byte, with the borrow of each piece."""
    out = bytearray()
    place = at = 0
    for start, add, copy in records:
        move = start - place
        out.extend(number(2 * move if move >= 0 else -2 * move - 1) + number(add) + number(copy))
        borrow = 0
        for n in range(add):
            if n == 0 or not at % delta.PIECE:
                borrow = 0
            value = new[at] - old[start + n] - borrow
            borrow = value < 0
            out.append(value & 255)
            at += 1
        out.extend(new[at : at + copy])
        at += copy
        place = start + add
    return delta.MAGIC + b"\x0a" + ids + pack(bytes(out))
