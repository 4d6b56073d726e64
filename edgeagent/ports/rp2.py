# SPDX-License-Identifier: Apache-2.0
"""MicroPython on RP2040 and RP2350 boards with Wi-Fi (RPI_PICO_W, RPI_PICO2_W).

Not run on hardware yet: it is held to the port contract on the virtual board with the chip's limits. machine.reset() is
the watchdog's work on this chip, so the reset cause after it is "watchdog".
"""

import sys

import machine

from edgeagent.compat import Any, const
from edgeagent.ports.micropython import MicroPythonPort

_DOG_MS = const(8000)  # the chip takes 8388 at most (machine.WDT.rst)
_PERIOD_MS = const(2000)


class Rp2Port(MicroPythonPort):
    """See base.py. Its feed() feeds a watchdog of any length: a timer feeds the chip's own until that has run out."""

    name = "rp2"
    board = sys.implementation._build
    chip = sys.implementation._machine.split(" ")[-1]  # "Raspberry Pi Pico W with RP2040"
    _dog: Any = None

    def watchdog(self, seconds: int) -> Any:
        self._most = seconds * 1000 // _PERIOD_MS
        self.feed()
        if not self._dog:
            self._dog = machine.WDT(timeout=_DOG_MS)
            self._timer = machine.Timer(-1, period=_PERIOD_MS, callback=self._tick)
        return self

    def feed(self) -> None:
        self._left = self._most

    def _tick(self, timer: Any) -> None:
        # Perhaps in an interrupt: nothing here may allocate.
        if self._left:
            self._left -= 1
            self._dog.feed()
