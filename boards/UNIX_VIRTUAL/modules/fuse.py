# SPDX-License-Identifier: Apache-2.0
"""A flash chip whose supply is cut at a chosen operation: BOARD_CUT=N:MODE.

The N-th program or erase from power-on (counting from 0) is the last. MODE `before` leaves it undone, `torn` does half
of it, `after` does it; then the power goes.
"""

import machine
from flash import BLOCK, Flash


class FusedFlash(Flash):
    def __init__(self, path, cut):
        super().__init__(path)
        at, self.mode = cut.split(":")
        self.left = int(at)

    def _blow(self):
        machine._restart(b"cut\n")

    def _part(self, size):
        """How much of the operation of `size` bytes still happens."""
        self.left -= 1
        if self.left >= 0 or self.mode == "after":
            return size
        return size // 2 if self.mode == "torn" else 0

    def writeblocks(self, block, buffer, offset=0):
        super().writeblocks(block, memoryview(buffer)[: self._part(len(buffer))], offset)
        if self.left < 0:
            self._blow()

    def ioctl(self, operation, argument):
        if operation != 6:
            return super().ioctl(operation, argument)
        self.erase(argument, self._part(BLOCK))
        if self.left < 0:
            self._blow()
        return 0
