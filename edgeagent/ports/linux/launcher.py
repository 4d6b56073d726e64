# SPDX-License-Identifier: Apache-2.0
"""What boot.py and main.py are on a board: choose the slot, run the application, restart on any escape.

The end of the process says what its parent is to do: 0 it stopped on request, 75 start it again. An application that
ends in any other way has failed, as on a board: one that returns or calls sys.exit, too. SIGTERM, Ctrl-C and the end of
the terminal are requests to stop, on trial as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import signal
import sys
import time
from threading import Timer
from types import FrameType
from typing import Any

from edgeagent import compat, log
from edgeagent.config import Config
from edgeagent.errors import AgentError
from edgeagent.ota import launch
from edgeagent.ports.linux import EXIT_RESTART, LinuxPort

_LEAVE_S = 10
STOP_S = 8.0  # then supervisor.py would kill it, which is a crash


def stops() -> list[signal.Signals]:
    """The signals that ask a process to stop; without those that are ignored, as below nohup."""
    every = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return [number for number in every if signal.getsignal(number) is not signal.SIG_IGN]


def run(path: str, config: Config) -> int:
    """Run what agent.json at `path`, which says `config`, describes until it ends; the exit status.

    A signal of `stops` raises SystemExit in the application, or here if it comes after it; what then still runs after
    STOP_S is ended. Raises AgentError if another agent runs with the same state folder.
    """
    port = LinuxPort(config)
    with _alone(port.state_dir):
        return _run(os.path.abspath(path), config, port)


def _alone(folder: str) -> Any:
    """A context in which no other agent runs with this state folder: its start would count as a crash of this one."""
    try:
        compat.make_dirs(folder)
        file = open(folder + "/lock", "a", encoding="ascii")
    except OSError:
        return contextlib.nullcontext()  # nothing can be written, so nothing counted
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which a process that was left behind would hold
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            raise AgentError("state_dir", f"{folder}: another agent runs with it") from None
    return file


def _run(path: str, config: Config, port: LinuxPort) -> int:
    root = port.slots_dir
    os.environ["EDGEAGENT_CONFIG"] = path
    asked = False
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        first, asked = not asked, True
        if first and os.getpid() == process:  # a process that the application has forked comes here as well
            port.ended()  # whatever it does from here on, it was no crash
            timer = Timer(STOP_S, _cut)
            timer.daemon = True
            timer.start()
        raise SystemExit(0)

    for number in stops():
        signal.signal(number, stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # the log is to be read while it happens

    def bare() -> None:
        from edgeagent.agent import Agent

        Agent.from_file(path).run()

    def blame(reason: str) -> None:
        if config.image:
            from edgeagent.image import crashed

            crashed(port, reason)

    cause = port.reset_cause()
    if cause == "killed":
        cause = "WDT or killed"  # safety.py counts what begins so as a crash
        blame(cause)
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
        if os.getpid() != process:
            raise
        reason = "the application called sys.exit"
    if os.getpid() != process:
        return 0  # one that it has forked, the end of which says nothing of the application
    if not escaped and not asked:
        launch.failed(root, reason)
    if not asked:
        blame(escaped or reason)
    port.ended()
    if asked:
        return 0
    log.error("launcher", "%s", escaped or reason)
    dog.feed()
    time.sleep(launch.backoff(root))
    port.limit(_LEAVE_S, lambda: True)  # a thread that the application has left behind would keep the process
    return EXIT_RESTART


def _cut() -> None:
    """End a process that does not: an application that catches everything, a thread, what runs at exit."""
    try:
        log.error("launcher", "did not stop within %d s, ended", int(STOP_S))
    finally:
        os._exit(0)


def module_command(path: str, log: str) -> list[str]:
    """The command line of a process that does `run(path)`. log: form of its log, see logs.py."""
    return [sys.executable, "-m", "edgeagent.cli", "run", "--config", path, "--log", log]
