# SPDX-License-Identifier: Apache-2.0
"""The flash chip of the virtual board: a file with NOR semantics, and a fuse that cuts the power at a chosen operation.

Programming clears bits only, erasing sets a whole 4 KiB block to 0xff (as SPI NOR on ESP32 boards). With
BOARD_CUT=N:MODE the N-th program or erase from power-on (counting from 0) is the last: MODE `before` leaves it undone,
`torn` does half of it, `after` does it; then the supply is cut.
"""

import os

BLOCK = 4096


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
        self.file.seek(position)
        old = self.file.read(size)
        new = bytes(memoryview(buffer)[:size])
        if old != b"\xff" * size:
            both = int.from_bytes(old, "big") & int.from_bytes(new, "big")
            new = both.to_bytes(size, "big")
        self.file.seek(position)
        self.file.write(new)
        if fused:
            self._power_off()

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
            self.file.write(b"\xff" * size)
            if fused:
                self._power_off()
            return 0
        return 0
