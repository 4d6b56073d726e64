# SPDX-License-Identifier: Apache-2.0
"""Its health check waits for ever.

expects: not confirmed within 2 s|did not end
"""

import asyncio

from edgeagent import Agent

agent = Agent.from_file()


@agent.health_check
async def stuck():
    await asyncio.Event().wait()


def main():
    agent.run()
