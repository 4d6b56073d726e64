# SPDX-License-Identifier: Apache-2.0
"""Goes to deep sleep again and again.

expects: interrupted: DEEPSLEEP_RESET
"""

import machine


def main():
    machine.deepsleep(200)
