# SPDX-License-Identifier: Apache-2.0
"""The supervisor with small child programs, in a process of its own, as it runs on a host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import default_signals

WAIT_S = 10.0
DRIVER = """
import sys
from edgeagent.ports.linux.supervisor import Supervisor
watchdog, grace = float(sys.argv[1]), float(sys.argv[2])
sys.exit(Supervisor([sys.executable, "-c", sys.argv[3]], watchdog, (0.02, 0.05), grace).run())
"""
# Each child notes its start; `n` is which one it is.
PRELUDE = """
import os, signal, sys, time
with open("starts", "a") as f: f.write("%d\\n" % os.getpid())
n = len(open("starts").readlines())
feed = lambda: os.write(int(os.environ["EDGEAGENT_WATCHDOG_FD"]), b".")
end = lambda: (os.kill(os.getppid(), signal.SIGTERM), time.sleep(60))
"""


class Supervised:
    def __init__(self, folder: Path, child: str, watchdog: float = 30, grace: float = 5) -> None:
        self._starts = folder / "starts"
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(watchdog), str(grace), PRELUDE + child],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            preexec_fn=default_signals,
        )

    def pids(self) -> list[int]:
        return [int(line) for line in self._starts.read_text().split()] if self._starts.exists() else []

    def status(self) -> int:
        return self.process.wait(WAIT_S)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def start(child: str, **options: float) -> Supervised:
        made.append(Supervised(tmp_path, child, **options))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie whose parent is being torn down is gone as well.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_a_restart_is_given_when_asked_for(supervise: Callable[..., Supervised]) -> None:
    one = supervise("sys.exit(75) if n < 4 else end()")
    assert one.status() == 0
    assert len(one.pids()) == 4


def test_a_child_that_ends_in_any_other_way_is_started_again(supervise: Callable[..., Supervised]) -> None:
    one = supervise("os._exit([0, 1, 2, 78][n - 1]) if n < 5 else end()")
    assert one.status() == 0
    assert len(one.pids()) == 5


def test_a_signal_is_followed_by_another_start(supervise: Callable[..., Supervised]) -> None:
    one = supervise("if n == 1: os.kill(os.getpid(), signal.SIGKILL)\nend()")
    assert one.status() == 0
    assert len(one.pids()) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_request_to_stop_is_passed_on_and_ends_both(supervise: Callable[..., Supervised], number: int) -> None:
    child = """
signal.signal(15, lambda *_: (open("asked", "w").close(), sys.exit(0)))
open("ready", "w").close()
time.sleep(60)
"""
    one = supervise(child)
    until((one._starts.parent / "ready").exists)
    one.process.send_signal(number)
    assert one.status() == 0
    assert (one._starts.parent / "asked").exists()
    assert gone(one.pids()[0])


def test_a_child_that_ignores_sigterm_is_killed(supervise: Callable[..., Supervised]) -> None:
    one = supervise("signal.signal(15, signal.SIG_IGN)\nopen('deaf', 'w').close()\ntime.sleep(60)", grace=0.2)
    until((one._starts.parent / "deaf").exists)
    one.process.send_signal(signal.SIGTERM)
    assert one.status() == 0
    assert gone(one.pids()[0])


def test_a_child_that_stops_feeding_is_started_again(supervise: Callable[..., Supervised]) -> None:
    one = supervise("feed()\ntime.sleep(60) if n < 3 else end()", watchdog=0.3)
    assert one.status() == 0
    assert len(one.pids()) == 3


def test_a_child_that_feeds_stays(supervise: Callable[..., Supervised]) -> None:
    one = supervise("for _ in range(15): feed(); time.sleep(0.1)\nend()", watchdog=0.8)
    assert one.status() == 0
    assert len(one.pids()) == 1


def test_a_child_that_never_feeds_is_left_alone(supervise: Callable[..., Supervised]) -> None:
    one = supervise("time.sleep(0.6)\nend()", watchdog=0.2)
    assert one.status() == 0
    assert len(one.pids()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
def test_no_child_outlives_a_killed_supervisor(supervise: Callable[..., Supervised]) -> None:
    one = supervise("time.sleep(60)")
    until(one.pids)
    one.process.kill()
    until(lambda: gone(one.pids()[0]))
