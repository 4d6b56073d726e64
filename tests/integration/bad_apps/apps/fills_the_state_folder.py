# SPDX-License-Identifier: Apache-2.0
"""Fills the folder of the agent's state, then runs the agent.

expects: not confirmed|cannot be counted
"""

from edgeagent import Agent

agent = Agent.from_file()


def main():
    n = 0
    for size in (16384, 1024, 200, 10):
        try:
            while True:
                with open("/state/data%d" % n, "wb") as f:
                    f.write(b"x" * size)
                n += 1
        except OSError:
            pass
    agent.run()
