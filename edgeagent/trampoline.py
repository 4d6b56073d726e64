# SPDX-License-Identifier: Apache-2.0
"""Boards: what stage 0 (boards/common/main.py) starts of the agent that it has chosen. Updated with the agent.

Loaded once at the start and kept, so it is small; launch.py is what runs and outlives the application.
"""

import json

from edgeagent.compat import Any
from edgeagent.errors import ConfigError
from edgeagent.ota import launch
from edgeagent.ports.micropython import limit


def run(root: str, cause: str, wait: "Any") -> None:
    """Run the application, or the bare agent; return when the board is to restart.

    Stage 0 is never updated, so this is fixed: root: folder of the slots. cause: why the board restarted. wait:
    function of seconds that feeds the watchdog meanwhile.
    """

    def bare() -> None:
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

    try:
        if not launch.run(root, _application(), bare, cause, limit):
            launch.failed(root, "the application ended by itself")
    except SystemExit:
        launch.failed(root, "the application called sys.exit")
    wait(launch.backoff(root))


def _application() -> str:
    try:
        with open("/agent.json") as f:
            return str(json.load(f).get("application") or "app")
    except (OSError, ValueError, AttributeError):
        return "app"
