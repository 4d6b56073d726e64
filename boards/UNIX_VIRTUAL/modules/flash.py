# SPDX-License-Identifier: Apache-2.0
"""The flash chip of the virtual board: a file with NOR semantics, and a fuse that cuts the power at a chosen operation.

Programming clears bits only, erasing sets a whole 4 KiB block to 0xff (as SPI NOR on ESP32 boards). With
BOARD_CUT=N:MODE the N-th program or erase from power-on (counting from 0) is the last: MODE `before` leaves it undone,
`torn` does half of it, `after` does it; then the supply is cut.
"""

import os

BLOCK = 4096
_ERASED = b"\xff" * 256  # a real chip erases without taking heap from the program


class Flash:
    def __init__(self, path):
        self.blocks = os.stat(path)[6] // BLOCK
        self.file = open(path, "r+b")
        self.operations = 0
        cut = os.getenv("BOARD_CUT")
        self.cut_at, self.cut_mode = -1, ""
        if cut:
            at, self.cut_mode = cut.split(":")
            self.cut_at = int(at)

    def _fused(self):
        self.operations += 1
        return self.operations - 1 == self.cut_at

    def _power_off(self):
        import machine

        machine._tell(b"cut\n")
        while True:
            pass

    def readblocks(self, block, buffer, offset=0):
        self.file.seek(block * BLOCK + offset)
        self.file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=0):
        fused = self._fused()
        size = len(buffer)
        if fused and self.cut_mode != "after":
            size = size // 2 if self.cut_mode == "torn" else 0
        position = block * BLOCK + offset
        for start in range(0, size, len(_ERASED)):
            piece = memoryview(buffer)[start : min(start + len(_ERASED), size)]
            self._program(position + start, piece)
        if fused:
            self._power_off()

    def _program(self, position, new):
        self.file.seek(position)
        old = self.file.read(len(new))
        if old != _ERASED[: len(new)]:
            new = (int.from_bytes(old, "big") & int.from_bytes(new, "big")).to_bytes(len(new), "big")
        self.file.seek(position)
        self.file.write(new)

    def ioctl(self, operation, argument):
        if operation == 4:
            return self.blocks
        if operation == 5:
            return BLOCK
        if operation == 6:
            fused = self._fused()
            size = BLOCK
            if fused and self.cut_mode != "after":
                size = BLOCK // 2 if self.cut_mode == "torn" else 0
            self.file.seek(argument * BLOCK)
            for _ in range(size // len(_ERASED)):
                self.file.write(_ERASED)
            if fused:
                self._power_off()
            return 0
        return 0
