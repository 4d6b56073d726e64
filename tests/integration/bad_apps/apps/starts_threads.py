# SPDX-License-Identifier: Apache-2.0
"""Starts threads that never end, and crashes.

expects: RuntimeError: threads
"""

import _thread
import time


def spin():
    while True:
        time.sleep_ms(1)


def main():
    for _ in range(4):
        _thread.start_new_thread(spin, ())
    raise RuntimeError("threads")
