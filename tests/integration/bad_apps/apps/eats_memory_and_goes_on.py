# SPDX-License-Identifier: Apache-2.0
"""Fills the heap, catches the error, and keeps all of it while the agent runs.

expects: not confirmed|MemoryError|interrupted
"""

from edgeagent import Agent

agent = Agent.from_file()
keep = []


def main():
    try:
        while True:
            keep.append(bytearray(100))
    except MemoryError:
        pass
    agent.run()
