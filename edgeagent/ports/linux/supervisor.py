# SPDX-License-Identifier: Apache-2.0
"""Restarts the agent on hosts without a service manager, and is its watchdog. `edgeagent run --supervise`.

    child ends with         what happens
    75 (restart)            started again at once; with back-off if it lived less than 5 s
    anything else, signal   started again with back-off, 1 s doubling to 60 s; a child that lived 60 s starts it anew
78 (the configuration is wrong) is no exception: a version on trial can end with it, too. Whoever starts the supervisor
checks the configuration before.
The child's watchdog is a pipe, EDGEAGENT_WATCHDOG_FD: from the first byte on, which the launcher sends before it loads
the application, it has to feed within `watchdog_s` seconds, else it is killed and started again. SIGTERM, SIGINT and
SIGHUP are passed on as SIGTERM; a child that does not end within 10 s is killed. If the supervisor itself is
killed, the kernel kills the child (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from edgeagent import log
from edgeagent.ports.linux import EXIT_RESTART
from edgeagent.ports.linux.launcher import stops

_PR_SET_PDEATHSIG = 1  # prctl(2)
_POLL_S = 0.2
GRACE_S = 10.0
_STABLE_S = 60.0
_HASTY_S = 5.0


class Supervisor:
    """Runs `command` again and again. Times in seconds; the defaults are those of the module's table."""

    def __init__(
        self,
        command: Sequence[str],
        watchdog_s: float = 120.0,
        backoff_s: tuple[float, float] = (1.0, 60.0),
        grace_s: float = GRACE_S,
    ) -> None:
        self._command = list(command)
        self._watchdog_s = watchdog_s
        self._first, self._most = backoff_s
        self._delay = self._first
        self._grace_s = grace_s
        self._stop_at: float | None = None  # when a child that was told to stop is killed
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Until a signal ends both; the exit status. Call it on the main thread."""
        previous = {number: signal.signal(number, self._signalled) for number in stops()}
        try:
            while True:
                started = time.monotonic()
                status = self._one()
                if self._stop_at is not None:
                    return 0
                self._wait(status, time.monotonic() - started)
                if self._stop_at is not None:
                    return 0
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _one(self) -> int:
        """Run one child to its end; its exit status, negative for a signal."""
        feed, fed = os.pipe()
        os.set_blocking(feed, False)
        try:
            environment = {**os.environ, "EDGEAGENT_WATCHDOG_FD": str(fed)}
            child = subprocess.Popen(  # noqa: S603 - our own command line
                self._command,
                env=environment,
                pass_fds=(fed,),
                preexec_fn=_die_with_parent,  # this process has one thread
            )
        finally:
            os.close(fed)
        self._child = child
        try:
            if self._stop_at is not None:  # the signal came while the child was being made
                child.terminate()
            self._watch(child, feed)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
            self._child = None
            os.close(feed)
        return child.returncode

    def _watch(self, child: subprocess.Popen[bytes], feed: int) -> None:
        last: float | None = None
        while child.poll() is None:
            readable = select.select([feed], [], [], _POLL_S)[0]
            now = time.monotonic()
            if readable:
                if os.read(feed, 4096):
                    last = now
                else:
                    time.sleep(_POLL_S)  # the child has closed its end: it is about to end, or has no use for it
            if last is not None and now - last > self._watchdog_s:
                log.error("supervisor", "not fed for %d s, killed", int(now - last))
                child.kill()
                child.wait()
            if self._stop_at is not None and now > self._stop_at:
                log.error("supervisor", "did not stop within %d s, killed", int(self._grace_s))
                child.kill()
                child.wait()

    def _wait(self, status: int, lived: float) -> None:
        if lived >= _STABLE_S:
            self._delay = self._first
        if status == EXIT_RESTART and lived >= _HASTY_S:
            log.info("supervisor", "restarting as asked")
            return
        log.warning("supervisor", "ended with %d after %d s, again in %d s", status, int(lived), int(self._delay))
        until = time.monotonic() + self._delay
        while self._stop_at is None and time.monotonic() < until:
            time.sleep(min(_POLL_S, self._delay))
        self._delay = min(self._delay * 2, self._most)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._grace_s
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)


def _die_with_parent() -> None:  # pragma: no cover - between fork and exec
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
