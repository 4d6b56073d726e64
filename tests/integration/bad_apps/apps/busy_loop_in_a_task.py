# SPDX-License-Identifier: Apache-2.0
"""The agent runs, then a task keeps the loop for itself.

expects: interrupted: WDT_RESET, WDT_RESET, WDT_RESET
"""

import asyncio

from edgeagent import Agent

agent = Agent.from_file()


async def hog():
    await asyncio.sleep(0.3)
    while True:
        pass


async def both():
    asyncio.create_task(hog())
    await agent.start()


def main():
    asyncio.run(both())
