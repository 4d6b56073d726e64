# SPDX-License-Identifier: Apache-2.0
"""The two inner loops of the harness as machine code. Not every MicroPython can compile it: see the end of flash.py."""

import micropython

ptr8 = ptr16 = ptr32 = int  # names that the compiler knows; for those who read it on CPython


@micropython.viper
def readblocks(self, block: int, buffer, offset: int) -> int:
    if self.dead:
        return -5
    at = (block << 12) + offset
    size = int(len(buffer))
    source = ptr32(self.data)
    target = ptr32(buffer)
    place = at >> 2
    end = place + (size >> 2)
    n = 0
    while place < end:
        target[n] = source[place]
        place += 1
        n += 1
    seen = ptr8(self.seen)
    order = ptr16(self.order)
    cell = at >> 5
    end = (at + size + 31) >> 5
    while cell < end:
        if not seen[cell]:
            seen[cell] = 1
            n = order[0] + 1
            order[0] = n
            order[n] = cell
        cell += 1
    return 0


@micropython.viper
def digest(data: ptr32, cells: ptr16, count: int) -> int:
    """64 bits of the 32 bytes of each of `count` cells."""
    h = 1469598103
    n = 0
    while n < count:
        place = cells[n] << 3
        end = place + 8
        while place < end:
            h = (h ^ data[place]) * 0x9E3779B1
            h ^= h >> 29
            place += 1
        n += 1
    return h
