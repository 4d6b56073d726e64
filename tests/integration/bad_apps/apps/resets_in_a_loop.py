# SPDX-License-Identifier: Apache-2.0
"""Resets the board again and again.

expects: interrupted: HARD_RESET
"""

import machine


def main():
    machine.reset()
