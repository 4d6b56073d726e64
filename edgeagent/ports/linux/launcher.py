# SPDX-License-Identifier: Apache-2.0
"""What boot.py and main.py are on a board: choose the slot, run the application, restart on any escape.

The end of the process says what its parent is to do: 0 it stopped on request, 75 start it again. An application that
ends in any other way has failed, as on a board: one that returns or calls sys.exit, too.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from types import FrameType

from edgeagent import log
from edgeagent.config import Config
from edgeagent.ota import launch
from edgeagent.ports.linux import EXIT_RESTART, LinuxPort

_LEAVE_S = 10


def run(path: str, config: Config) -> int:
    """Run what agent.json at `path`, which says `config`, describes until it ends; the exit status.

    SIGTERM raises SystemExit in the application, or here if it comes after it.
    """
    path = os.path.abspath(path)
    port = LinuxPort(config)
    root = port.slots_dir
    os.environ["EDGEAGENT_CONFIG"] = path
    asked = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # the log is to be read while it happens

    def bare() -> None:
        from edgeagent.agent import Agent

        Agent.from_file(path).run()

    cause = port.reset_cause()
    if cause == "killed":
        cause = "WDT or killed"  # safety.py counts what begins so as a crash
    port.began()
    dog = port.watchdog(0)
    dog.feed()  # from here on it is watched: the import of the application as well
    escaped = ""
    reason = "the application ended by itself"
    try:
        escaped = launch.run(root, config.application, bare, cause, port.limit)
    except KeyboardInterrupt:
        asked = True
    except SystemExit:
        reason = "the application called sys.exit"
    if not escaped and not asked:
        launch.failed(root, reason)
    port.ended()
    if asked:
        return 0
    log.error("launcher", "%s", escaped or reason)
    dog.feed()
    time.sleep(launch.backoff(root))
    port.limit(_LEAVE_S, lambda: True)  # a thread that the application has left behind would keep the process
    return EXIT_RESTART


def module_command(path: str, log: str) -> list[str]:
    """The command line of a process that does `run(path)`. log: form of its log, see logs.py."""
    return [sys.executable, "-m", "edgeagent.cli", "run", "--config", path, "--log", log]
