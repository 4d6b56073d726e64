# SPDX-License-Identifier: Apache-2.0
"""Hangs, and has a timer that feeds the watchdog.

expects: did not end
"""

import machine


def main():
    dog = machine.WDT(timeout=1000)
    machine.Timer(-1, period=100, callback=lambda timer: dog.feed())
    while True:
        pass
