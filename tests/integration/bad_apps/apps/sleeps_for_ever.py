# SPDX-License-Identifier: Apache-2.0
"""Sleeps, without an event loop.

expects: interrupted: WDT_RESET, WDT_RESET, WDT_RESET
"""

import time


def main():
    time.sleep(100000)
