# SPDX-License-Identifier: Apache-2.0
"""A task that is always ready: the loop turns, sleeping tasks get little.

expects: not confirmed within 2 s|did not end
"""

import asyncio

from edgeagent import Agent

agent = Agent.from_file()


async def hog():
    while True:
        await asyncio.sleep(0)


async def both():
    asyncio.create_task(hog())
    await agent.start()


def main():
    asyncio.run(both())
