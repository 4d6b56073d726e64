# SPDX-License-Identifier: Apache-2.0
"""A NOR flash of which any program or erase may go wrong. Programming clears bits, erasing sets a block to 0xff.

Errors are returned, never raised: littlefs calls from C, and file finalisers would meet an exception in a locked heap.
"""

import hashlib
from array import array

BLOCK = 4096
CELL = 32  # bytes that littlefs reads at once, at least
_BLANK = b"\xff" * BLOCK
_SEEN = b"\1" * (BLOCK // CELL)

# How an operation may be interrupted. In all but `after` the power is gone before it has ended. One kind of operation
# takes a name of the other kind for its own nearest.
PROGRAM_TEARS = ("before", "prefix", "bits", "garbage", "almost", "after")
ERASE_TEARS = ("before", "half", "sliver", "prefix", "bits", "after")
TEARS = ("before", "prefix", "bits", "garbage", "almost", "half", "sliver", "after")
# What else may become of one; the device lives on. Values: what the driver returns, and whether it was done anyway.
FAULTS = {
    "eio": (-5, False),
    "eio-done": (-5, True),
    "enospc": (-28, False),
    "corrupt": (-84, False),
    "lost": (0, False),
}


def chance(seed, size):
    """`size` pseudo-random bytes, the same for the same text on every runtime."""
    out = b""
    while len(out) < size:
        out += hashlib.sha256(("%s/%d" % (seed, len(out))).encode()).digest()
    return out[:size]


def number(seed, below):
    """A pseudo-random whole number from 0 to below - 1."""
    return int.from_bytes(chance(seed, 4), "big") % below


def program(data, at, new, tear, seed):
    """Program bytes `new` at `at`, as far as `tear` lets it."""
    size = len(new)
    if tear == "before":
        return
    if tear in ("prefix", "half"):
        size = number(seed, size)
    old = data[at : at + size]
    if tear in ("bits", "almost", "sliver", "garbage"):
        held = int.from_bytes(old, "big")
        result = held & int.from_bytes(new, "big")
        if tear == "garbage":
            # The bytes that were meant up to a place; after it, some bits that nobody meant.
            place = number(seed, size)
            noise = b"\xff" * place + chance(seed + "n", size - place)
            done = bytes(new[:place]) + b"\xff" * (size - place)
            result = held & int.from_bytes(done, "big") & int.from_bytes(noise, "big")
        else:
            left = int.from_bytes(chance(seed, size), "big")
            if tear in ("almost", "sliver"):
                left = 1 << number(seed, 8 * size)
            result |= held & left
        data[at : at + size] = result.to_bytes(size, "big")
        return
    if old != _BLANK[:size]:
        new = (int.from_bytes(old, "big") & int.from_bytes(bytes(new[:size]), "big")).to_bytes(size, "big")
    data[at : at + size] = new[:size]


def erase(data, at, tear, seed):
    """Erase the block at `at`, as far as `tear` lets it."""
    size = BLOCK
    if tear == "before":
        return
    if tear == "half":
        size = BLOCK // 2
    elif tear in ("prefix", "garbage"):
        size = number(seed, BLOCK)
    elif tear in ("sliver", "almost", "bits"):
        # An erase that is stopped leaves single bits at 0: half of them, or the 4.5 % that were measured at once.
        stay = int.from_bytes(chance(seed, size), "big")
        if tear != "bits":
            for part in "bcd":
                stay &= int.from_bytes(chance(seed + part, size), "big")
            stay &= int.from_bytes(chance(seed + "e", size), "big") | int.from_bytes(chance(seed + "f", size), "big")
        held = int.from_bytes(data[at : at + size], "big")
        full = (1 << (8 * size)) - 1
        data[at : at + size] = (held | (full ^ stay)).to_bytes(size, "big")
        return
    data[at : at + size] = _BLANK[:size] if size < BLOCK else _BLANK


def apply(data, operation, tear="after", seed=""):
    """Do a logged operation (place, bytes or None for an erase, ...)."""
    if operation[1] is None:
        erase(data, operation[0], tear, seed)
    else:
        program(data, operation[0], operation[1], tear, seed)


def tears(operation):
    """All ways in which it may be interrupted."""
    return ERASE_TEARS if operation[1] is None else PROGRAM_TEARS


def readblocks(self, block, buffer, offset=0):
    """Flash.readblocks where there is no machine code."""
    if self.dead:
        return -5
    at = block * BLOCK + offset
    buffer[:] = memoryview(self.data)[at : at + len(buffer)]
    self.mark_read(at, len(buffer))
    return 0


class Flash:
    """data: bytearray, a whole number of blocks. log: None, or a list that gets (place, bytes or None, mark()).

    At operation `fault_at` (from 0) `fault` happens: a tear, after which the flash is dead, or one of FAULTS. With
    `stuck` that fault stays.
    """

    def __init__(self, data, mark=None):
        self.data = data
        self.mark = mark
        self.log = None
        self.count = 0
        self.fault_at = -1
        self.fault = ""
        self.seed = ""
        self.stuck = False
        self.dead = False
        self.watched = False  # who reads is the harness
        self.view = None  # a view.View or reads.Files above it, whose `forget` is called at each boot
        self.misreads = False  # reading may go wrong
        self.taboo = None  # bytes that are not to be written again
        self.touched = False  # and were
        self.seen = bytearray(len(data) // CELL)
        self.order = array("H", bytes(2 + len(data) // CELL * 2))

    def read_first(self):
        """The cells of which the old content matters, since they were not erased before: an array, as they were met."""
        return self.order[1 : self.order[0] + 1]

    def mark_read(self, at, size):
        seen = self.seen
        for cell in range(at // CELL, (at + size + CELL - 1) // CELL):
            if not seen[cell]:
                seen[cell] = 1
                self.order[0] += 1
                self.order[self.order[0]] = cell

    def writeblocks(self, block, buffer, offset=0):
        return self._do(block * BLOCK + offset, buffer)

    def ioctl(self, operation, argument):
        if operation == 4:
            return len(self.data) // BLOCK
        if operation == 5:
            return BLOCK
        if operation == 6:
            return self._do(argument * BLOCK, None)
        return 0

    def _do(self, at, buffer):
        if self.dead:
            return -5
        count = self.count
        self.count += 1
        if self.log is not None:
            self.log.append((at, buffer if buffer is None else bytes(buffer), self.mark and self.mark()))
        if count == self.fault_at or (self.stuck and 0 <= self.fault_at < count):
            if self.fault not in FAULTS:
                apply(self.data, (at, buffer), self.fault, self.seed)
                self.dead = True
                return -5
            answer, done = FAULTS[self.fault]
            if not done:
                return answer
        else:
            answer = 0
        cell = at // CELL
        if buffer is None:
            erase(self.data, at, "after", "")
            self.seen[cell : cell + BLOCK // CELL] = _SEEN
        else:
            if self.taboo and self.taboo in bytes(buffer):
                self.touched = True
            program(self.data, at, buffer, "after", "")
            self.mark_read(at, len(buffer))
        return answer


def digest(data, cells, count):
    """What these cells hold, in short."""
    made = hashlib.sha256()
    view = memoryview(data)
    for n in range(count):
        made.update(view[cells[n] * CELL : (cells[n] + 1) * CELL])
    return made.digest()


try:
    from hil.cuts.board import quick

    Flash.readblocks = quick.readblocks
    digest = quick.digest
except SyntaxError:  # this MicroPython makes no machine code: the same, slower
    Flash.readblocks = readblocks
