# SPDX-License-Identifier: Apache-2.0
"""The part that runs inside MicroPython, on the littlefs of the boards; the modules that
linux.py names also on CPython.

`sys.platform` is a board's there: an ESP32's, which has all kinds of updates.
"""

import sys


class Sys:
    platform = "esp32"

    def __getattr__(self, name):
        return getattr(sys, name)


if sys.implementation.name == "micropython":
    sys.modules["sys"] = Sys()
