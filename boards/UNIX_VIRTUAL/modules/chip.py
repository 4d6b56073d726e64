# SPDX-License-Identifier: Apache-2.0
"""What a chip's MicroPython does otherwise than the unix port, put in the place of `sys`, `time` and `json`.

    BOARD_CHIP   epoch   clock at power-on        floats   build
    esp32        2000    2000-01-01               32 bits  ESP32_GENERIC
    rp2          1970    2021-01-01               64 bits  RPI_PICO_W
    unix         1970    the host's               64 bits  the unix port as it is

An unset clock runs from that date until ntptime sets it; every reset but a power-on keeps it. Floats are cut to 32 bits
where they enter: in JSON (literals and arithmetic stay 64 bits wide). TLS checks dates against the host's clock.
Sources: MicroPython docs/library/time.rst, ports/esp32/mpconfigport.h, ports/rp2/main.c.
"""

import json as _json
import os
import struct
import sys as _sys
import time as _time

NAME = os.getenv("BOARD_CHIP") or "unix"
_EPOCH_2000 = 946684800
_BUILDS = {
    "esp32": ("ESP32_GENERIC", "Generic ESP32 module with ESP32"),
    "rp2": ("RPI_PICO_W", "Raspberry Pi Pico W with RP2040"),
}
_POWER_ON = {"esp32": _EPOCH_2000, "rp2": 1609459200}


class Implementation:
    """`sys.implementation` with the chip's build."""

    name = "micropython"
    version = _sys.implementation.version
    _mpy = _sys.implementation._mpy

    def __init__(self, build, machine):
        self._build = build
        self._machine = machine


class Sys:
    def __init__(self):
        self.platform = NAME
        self.implementation = Implementation(*_BUILDS[NAME])

    def __getattr__(self, name):
        return getattr(_sys, name)


class Time:
    """Counts whole seconds from the chip's epoch; `behind` is what an unset clock lacks."""

    def __init__(self):
        self.epoch = _EPOCH_2000 if NAME == "esp32" else 0
        self.behind = 0 if os.getenv("BOARD_CLOCK") else int(_time.time()) - _POWER_ON[NAME]

    def time(self):
        return int(_time.time()) - self.epoch - self.behind

    def time_ns(self):
        return self.time() * 1000000000

    def gmtime(self, seconds=None):
        return _time.gmtime((self.time() if seconds is None else seconds) + self.epoch)

    localtime = gmtime

    def mktime(self, parts):
        return int(_time.mktime(parts)) - self.epoch

    def __getattr__(self, name):
        return getattr(_time, name)


def _cut(value):
    """Floats as 32 bits hold them."""
    if isinstance(value, float):
        return struct.unpack("f", struct.pack("f", value))[0]
    if isinstance(value, list):
        for i in range(len(value)):
            value[i] = _cut(value[i])
    elif isinstance(value, dict):
        for key in value:
            value[key] = _cut(value[key])
    return value


class Json:
    def loads(self, text):
        return _cut(_json.loads(text))

    def load(self, stream):
        return _cut(_json.load(stream))

    def __getattr__(self, name):
        return getattr(_json, name)


def apply():
    """From now on `import sys` and the others find the chip's."""
    if NAME != "unix":
        _sys.modules["sys"] = Sys()
        _sys.modules["time"] = Time()
        if NAME == "esp32":
            _sys.modules["json"] = Json()
