# SPDX-License-Identifier: Apache-2.0
"""Crashes after the agent has run for a while, before it is confirmed.

expects: ZeroDivisionError
"""

import asyncio

from edgeagent import Agent

agent = Agent.from_file()


async def fail():
    await asyncio.sleep(1)
    1 / 0  # noqa: B018


async def both():
    await asyncio.gather(agent.start(), fail())


def main():
    asyncio.run(both())
