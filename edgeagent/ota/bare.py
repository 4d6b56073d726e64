# SPDX-License-Identifier: Apache-2.0
"""Boards: what the trampoline needs once: the application's name, and the agent alone when there is no application."""

import json

from edgeagent.compat import Any
from edgeagent.errors import ConfigError


def application() -> str:
    """The module's name, of agent.json."""
    try:
        with open("/agent.json") as f:
            return str(json.load(f).get("application") or "app")
    except (OSError, ValueError, AttributeError):
        return "app"


def run(root: str) -> "Any":
    """Run the bare agent. root: folder of the slots. Raises ConfigError."""
    try:
        __import__("wifi")  # the board's own, which brings its network up: no application does it now
    except ImportError:
        pass
    from edgeagent.agent import Agent

    try:
        agent = Agent.from_file()
    except ConfigError:
        from edgeagent.ota import safety

        safety.put_back(root)  # an application has damaged it
        raise
    agent.run()
