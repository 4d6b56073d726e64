# SPDX-License-Identifier: Apache-2.0
"""Never starts the agent, and feeds the watchdog for ever.

expects: did not end
"""

import time

import machine


def main():
    dog = machine.WDT(timeout=1000)
    while True:
        dog.feed()
        time.sleep(0.1)
