# SPDX-License-Identifier: Apache-2.0
"""The part that runs inside MicroPython, on the littlefs of the boards; device.py and scenarios.py also on CPython."""
