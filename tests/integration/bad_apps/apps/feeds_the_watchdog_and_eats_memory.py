# SPDX-License-Identifier: Apache-2.0
"""Fills the heap, survives it, and feeds the watchdog for ever.

expects: did not end|interrupted
"""

import machine

keep = []


def main():
    dog = machine.WDT(timeout=1000)
    while True:
        try:
            while True:
                keep.append(bytearray(64))
        except MemoryError:
            pass
        dog.feed()
