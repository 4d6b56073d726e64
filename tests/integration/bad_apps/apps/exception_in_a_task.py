# SPDX-License-Identifier: Apache-2.0
"""A task of its own dies and nobody waits for it; the version is never confirmed.

expects: not confirmed within 2 s
"""

import asyncio

from edgeagent import Agent

agent = Agent.from_file()


async def fail():
    raise ValueError("lost")


async def both():
    asyncio.create_task(fail())
    await agent.start()


def main():
    asyncio.run(both())
