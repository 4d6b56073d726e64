# SPDX-License-Identifier: Apache-2.0
"""Its health check keeps the event loop.

expects: interrupted: WDT_RESET, WDT_RESET, WDT_RESET
"""

from edgeagent import Agent

agent = Agent.from_file()


@agent.health_check
def stuck():
    while True:
        pass


def main():
    agent.run()
