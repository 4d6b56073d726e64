# SPDX-License-Identifier: Apache-2.0
"""Fills the folder of the agent's state, then runs the agent.

expects: not confirmed|cannot be counted
"""

from edgeagent import Agent
from shared.fill import fill

agent = Agent.from_file()


def main():
    fill("/state/data")
    agent.run()
