# SPDX-License-Identifier: Apache-2.0
"""`machine` of the virtual board. The board's power supply and watchdog live in the host process that runs it
(hil/virtual_board.py); this module speaks to them over a FIFO, one line a command.

Models MicroPython's esp32 port (docs/library/machine.rst, machine.WDT.rst): reset() does not return, nothing runs after
it, no `finally` and no finaliser; a started WDT cannot be stopped or given a longer timeout.
Not modelled: pins, timers, sleep modes, brown-out.
"""

import os
import time

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

_control = open("control", "wb")


def _tell(line):
    _control.write(line)


def _restart(kind):
    _tell(kind)
    while True:  # the supply is cut from outside: SIGKILL, no clean-up of any kind
        time.sleep_ms(1000)


def reset():
    _restart(b"reset\n")


def soft_reset():
    _restart(b"soft\n")


def reset_cause():
    return int(os.getenv("BOARD_RESET_CAUSE") or PWRON_RESET)


def unique_id():
    return bytes.fromhex(os.getenv("BOARD_UID") or "000000000000")


def freq():
    return 160000000


class WDT:
    def __init__(self, id=0, timeout=5000):
        if timeout < 1:
            raise ValueError("WDT timeout too short")
        _tell(b"wdt %d\n" % timeout)

    def feed(self):
        _tell(b"feed\n")
