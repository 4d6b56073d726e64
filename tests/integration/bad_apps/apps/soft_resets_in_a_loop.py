# SPDX-License-Identifier: Apache-2.0
"""Restarts the interpreter again and again.

expects: interrupted: SOFT_RESET
"""

import machine


def main():
    machine.soft_reset()
