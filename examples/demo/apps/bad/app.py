# SPDX-License-Identifier: Apache-2.0
"""A release that should never have left the building: it imports a module that was not packed."""

import fuel_injection  # type: ignore[import-not-found]

from edgeagent import Agent

VERSION = "3.0.0"
agent = Agent.from_file(version=VERSION)


def main():
    fuel_injection.start()
    agent.run()
