# SPDX-License-Identifier: Apache-2.0
"""Replaces asyncio.sleep with one that never returns.

expects: interrupted|did not end
"""

import asyncio

from edgeagent import Agent

agent = Agent.from_file()


async def sleep(seconds):
    await asyncio.Event().wait()


asyncio.sleep = sleep


def main():
    agent.run()
