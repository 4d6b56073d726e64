# SPDX-License-Identifier: Apache-2.0
"""`machine` of the virtual board. The board's power supply and watchdog live in the host process that runs it
(hil/virtual_board.py); this module speaks to them over a FIFO, one line a command.

Models MicroPython's esp32 and rp2 ports (docs/library/machine.rst, machine.WDT.rst): reset() does not return, nothing
runs after it, no `finally` and no finaliser; a started WDT cannot be stopped or given a longer timeout; on rp2 a WDT
takes 8388 ms at most, and reset() looks like the watchdog's afterwards, because it is. Timers have soft callbacks, as
both ports have them: between two bytecodes of whatever runs, but not while the program is in a C function.
Not modelled: digital pins, sleep modes but deepsleep with a time, brown-out.
"""

import os
import time

_RP2 = os.getenv("BOARD_CHIP") == "rp2"
_TICK_MS = 20
PWRON_RESET = 1
WDT_RESET = 3
if not _RP2:
    HARD_RESET = 2
    DEEPSLEEP_RESET = 4
    SOFT_RESET = 5

# Opened before the board's own file system takes the place of the host's.
_control = open("control", "wb")
_air = open("air", "rb")
_nvs = open("nvs.json", "r+b")
_analog = open("adc", "rb")
_flash = None  # of an ESP32: where its app partitions are


def _tell(line):
    _control.write(line)


def _radio():
    """Is there Wi-Fi to be had? The host says so (VirtualBoard.wifi)."""
    _air.seek(0)
    return _air.read(1) == b"1"


def _nvs_read():
    _nvs.seek(0)
    size = int(_nvs.read(8) or 0)
    return _nvs.read(size)


def _nvs_write(text):
    data = text.encode()
    _nvs.seek(0)
    _nvs.write(b"%08d" % len(data) + data)
    _nvs.flush()


def _restart(kind):
    _tell(kind)
    while True:  # the supply is cut from outside: SIGKILL, no clean-up of any kind
        time.sleep_ms(1000)


def reset():
    _restart(b"reset\n")


def soft_reset():
    _restart(b"soft\n")


def deepsleep(milliseconds=None):
    _control.write(b"sleep\n" if milliseconds is None else b"sleep %d\n" % milliseconds)
    while True:
        time.sleep_ms(1000)


def reset_cause():
    cause = int(os.getenv("BOARD_RESET_CAUSE") or PWRON_RESET)
    return WDT_RESET if _RP2 and cause > 1 else cause


def unique_id():
    return bytes.fromhex(os.getenv("BOARD_UID") or "000000000000")


def freq():
    return 125000000 if _RP2 else 160000000


class ADC:
    """Every input has the level that the host sets (VirtualBoard.adc)."""

    def __init__(self, pin):
        pass

    def read_u16(self):
        _analog.seek(0)
        return int(_analog.read(5))


class Timer:
    ONE_SHOT = 0
    PERIODIC = 1

    def __init__(self, id=-1, **settings):
        if settings:
            self.init(**settings)

    def init(self, *, mode=PERIODIC, period=-1, callback=None):
        self.deinit()
        self.again = mode == Timer.PERIODIC
        self.period = period
        self.callback = callback
        self.due = time.ticks_add(time.ticks_ms(), period)
        if not _timers:
            _start_timers()
        _timers.append(self)

    def deinit(self):
        if self in _timers:
            _timers.remove(self)


_timers = []


def _start_timers():
    import _thread

    _timers.append(None)  # a thread was started: it never ends
    _thread.start_new_thread(_tick, ())


def _tick():
    """The hardware: wakes the program in short intervals, by what the real ports use for soft callbacks."""
    from micropython import schedule

    while True:
        time.sleep_ms(_TICK_MS)
        try:
            schedule(_run_timers, None)
        except Exception:  # noqa: S110 - the queue is full: the program is in a C function; or its heap is
            pass


def _run_timers(_):
    for n in range(len(_timers) - 1, 0, -1):  # without a byte of heap: there may be none left
        timer = _timers[n]
        if time.ticks_diff(time.ticks_ms(), timer.due) >= 0:
            timer.due = time.ticks_add(timer.due, timer.period)
            if not timer.again:
                timer.deinit()
            timer.callback(timer)


class WDT:
    def __init__(self, id=0, timeout=5000):
        if timeout < 1:
            raise ValueError("WDT timeout too short")
        if _RP2 and timeout > 8388:
            raise ValueError("timeout exceeds 8388")
        _tell(b"wdt %d\n" % timeout)

    def feed(self):
        _tell(b"feed\n")
