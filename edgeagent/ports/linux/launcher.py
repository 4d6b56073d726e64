# SPDX-License-Identifier: Apache-2.0
"""What boot.py and main.py are on a board: choose the slot, run the application, restart on any escape.

The end of the process says what its parent is to do: 0 it stopped on request, 2 the configuration is wrong, 75 start it
again.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from types import FrameType

from edgeagent import log
from edgeagent.config import load
from edgeagent.ota import launch
from edgeagent.ports.linux import EXIT_RESTART, LinuxPort


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def run(path: str) -> int:
    """Run what agent.json at `path` describes until it ends; the exit status.

    Raises ConfigError if agent.json is wrong, SystemExit when asked to stop (SIGTERM) and when the device restarts.
    """
    path = os.path.abspath(path)
    config = load(path)
    port = LinuxPort(config)
    root = port.slots_dir
    os.environ["EDGEAGENT_CONFIG"] = path
    signal.signal(signal.SIGTERM, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # the log is to be read while it happens

    def bare() -> None:
        from edgeagent.agent import Agent

        Agent.from_file(path).run()

    try:
        reason = launch.run(root, config.application, bare, port.reset_cause())
    except KeyboardInterrupt:
        return 0
    if not reason:
        return 0
    log.error("launcher", "%s", reason)
    port.watchdog(0).feed()
    time.sleep(launch.backoff(root))
    return EXIT_RESTART


def module_command(path: str, log: str) -> list[str]:
    """The command line of a process that does `run(path)`. log: form of its log, see logs.py."""
    return [sys.executable, "-m", "edgeagent.cli", "run", "--config", path, "--log", log]
