# SPDX-License-Identifier: Apache-2.0
"""Replaces the agent's health check, and hangs.

expects: interrupted: WDT_RESET, WDT_RESET, WDT_RESET
"""

from edgeagent import Agent


async def healthy(self):
    return True, ""


Agent.healthy = healthy


def main():
    while True:
        pass
