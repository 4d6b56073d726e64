# SPDX-License-Identifier: Apache-2.0
"""Its health check raises.

expects: not confirmed within 2 s, no connection: broken: OSError
"""

from edgeagent import Agent

agent = Agent.from_file()


@agent.health_check
def broken():
    raise OSError(5)


def main():
    agent.run()
