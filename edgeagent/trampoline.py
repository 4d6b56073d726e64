# SPDX-License-Identifier: Apache-2.0
"""Boards: what stage 0 (boards/common/main.py) starts of the agent that it has chosen. Updated with the agent.

Loaded once at the start and kept, so it is small; launch.py is what runs and outlives the application.
"""

from edgeagent.compat import Any
from edgeagent.jobs.registry import unload
from edgeagent.ota import launch
from edgeagent.ports.micropython import limit


def run(root: str, cause: str, wait: "Any") -> None:
    """Run the application, or the bare agent; return when the board is to restart.

    Stage 0 is never updated, so this is fixed: root: folder of the slots. cause: why the board restarted. wait:
    function of seconds that feeds the watchdog meanwhile.
    """
    from edgeagent.ota.safety import application

    name = application()
    del application
    unload(["edgeagent.ota.safety"])

    def bare() -> None:
        from edgeagent.ota.safety import bare as run

        run(root)

    reason = "the application ended by itself"
    try:
        if launch.run(root, name, bare, cause, limit):
            reason = ""
    except SystemExit:
        reason = "the application called sys.exit"
    if reason:
        launch.failed(root, reason)
    wait(launch.backoff(root))
