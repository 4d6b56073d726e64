# SPDX-License-Identifier: Apache-2.0
"""Breaks every connection of the agent.

expects: not confirmed within 2 s, no connection
"""

from edgeagent import Agent

agent = Agent.from_file()


async def refuse(*_):
    raise OSError(113)


agent.port.open_stream = refuse


def main():
    agent.run()
