# SPDX-License-Identifier: Apache-2.0
"""Loops for ever without the agent.

expects: interrupted: WDT_RESET, WDT_RESET, WDT_RESET
"""


def main():
    while True:
        pass
