# SPDX-License-Identifier: Apache-2.0
"""The part that runs inside MicroPython, where littlefs is the one of the boards; device.py and jobs.py also on CPython."""
