# SPDX-License-Identifier: Apache-2.0
"""Leaks beside the agent, until the agent has no memory.

expects: MemoryError|not confirmed|interrupted
"""

import asyncio

from edgeagent import Agent

agent = Agent.from_file()
keep = []


async def leak():
    while True:
        keep.append(bytearray(500))
        await asyncio.sleep(0)


async def both():
    asyncio.create_task(leak())
    await agent.start()


def main():
    asyncio.run(both())
