# SPDX-License-Identifier: Apache-2.0
"""Prints to the console for ever.

expects: interrupted: WDT_RESET, WDT_RESET, WDT_RESET
"""

import time


def main():
    while True:
        print("x" * 100)
        time.sleep_ms(1)
