# SPDX-License-Identifier: Apache-2.0
"""The processes of the demo: the fleet manager and the CPython agent, each a real command, none left behind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hil.virtual_board import die_with_parent

BIN = Path(sys.executable).parent


class DemoError(Exception):
    """A step of the demo did not do what it should; the text says what was seen."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(process: subprocess.Popen[Any], grace_s: float = 10) -> None:
    """End a process and its whole session: SIGTERM, then SIGKILL."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class FleetManager:
    """`edgefleet up` in its own data folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.mqtt_port = free_port()
        self.api_port = free_port()
        self.ready: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None

    def start(self, timeout_s: float = 30) -> None:
        """Start, and return when it accepts connections. Raises DemoError with its last words."""
        log = (self.data.parent / "edgefleet.log").open("a")
        self._process = subprocess.Popen(
            [
                str(BIN / "edgefleet"),
                "up",
                "--data",
                str(self.data),
                "--mqtt-port",
                str(self.mqtt_port),
                "--api-port",
                str(self.api_port),
                "--json-ready",
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if select.select([self._process.stdout], [], [], 0.2)[0]:
                line = self._process.stdout.readline()
                if not line:
                    break
                if line.startswith("{"):
                    self.ready = json.loads(line)
                    return
        raise DemoError(f"edgefleet did not come up: {(self.data.parent / 'edgefleet.log').read_text()[-400:]}")

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)

    @property
    def environment(self) -> dict[str, str]:
        """What a shell needs so that boto3, `aws` and `edgefleet` speak to this site."""
        return {
            "COLUMNS": "140",  # where there is no terminal to ask
            **os.environ,
            "EDGEFLEET_DATA": str(self.data),
            "AWS_CONFIG_FILE": str(self.data / "aws" / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.data / "aws" / "credentials"),
            "AWS_PROFILE": "edgefleet",
            "AWS_CA_BUNDLE": str(self.ready["ca"]),  # one of the caller's own would win over the profile's
        }

    def run(self, *arguments: str, show: bool = False, codes: tuple[int, ...] = (0,)) -> str:
        """Run an `edgefleet` command against this site; returns what it printed (unless shown).

        Raises DemoError if it exits with a code not in `codes`.
        """
        result = subprocess.run(
            [str(BIN / "edgefleet"), *arguments],
            env=self.environment,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            text=True,
            check=False,
        )
        if result.returncode not in codes:
            raise DemoError(
                f"edgefleet {' '.join(arguments)}: exit {result.returncode}: {(result.stderr or '')[-400:]}"
            )
        return result.stdout or ""


class LinuxAgent:
    """`edgeagent run --supervise`, as it runs on a Raspberry Pi."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.folder / "console.log").open("ab")
        self._process = subprocess.Popen(
            [str(BIN / "edgeagent"), "run", "--supervise", "--config", str(self.folder / "agent.json")],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    @property
    def pid(self) -> int | None:
        """Of the supervisor; the agent is its child."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)
