# SPDX-License-Identifier: Apache-2.0
"""The flash chip of the virtual board: a file with NOR semantics. Programming clears bits only, erasing sets a whole
4 KiB block to 0xff, as SPI NOR on ESP32 boards does.
"""

import os

BLOCK = 4096
_ERASED = b"\xff" * 256  # a real chip erases without taking heap from the program


class Flash:
    def __init__(self, path):
        self.blocks = os.stat(path)[6] // BLOCK
        self.file = open(path, "r+b")

    def readblocks(self, block, buffer, offset=0):
        self.file.seek(block * BLOCK + offset)
        self.file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=0):
        view = memoryview(buffer)
        position = block * BLOCK + offset
        for start in range(0, len(view), 256):
            new = view[start : start + 256]
            self.file.seek(position + start)
            old = self.file.read(len(new))
            if old != _ERASED[: len(new)]:
                new = (int.from_bytes(old, "big") & int.from_bytes(new, "big")).to_bytes(len(new), "big")
            self.file.seek(position + start)
            self.file.write(new)

    def erase(self, block, size):
        self.file.seek(block * BLOCK)
        for _ in range(size // 256):
            self.file.write(_ERASED)

    def ioctl(self, operation, argument):
        if operation == 6:
            self.erase(argument, BLOCK)
        return self.blocks if operation == 4 else BLOCK if operation == 5 else 0
