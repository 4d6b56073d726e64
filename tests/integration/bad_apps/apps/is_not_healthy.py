# SPDX-License-Identifier: Apache-2.0
"""Its health check fails.

expects: not confirmed within 2 s, no connection: broken: no oil
"""

from edgeagent import Agent

agent = Agent.from_file()


@agent.health_check
def broken():
    return False, "no oil"


def main():
    agent.run()
