# SPDX-License-Identifier: Apache-2.0
"""The agent of rauc_machine.py, a process of its own. Arguments: folder of the machine, path of agent.json.

What belongs to the machine is read from its folder: `kernel` (boot id), `running` (version of what is booted), `sick`
(versions whose application is not well), `busy` (stages of an update that have to wait). With KILL_AT=n in the
environment this process kills itself (KILL=agent) or has the machine's power cut (KILL=power) at the n-th place where
something becomes durable or RAUC is asked, counted over all processes by the length of the file `steps`. CONFIRM:
seconds of a trial, fewer than agent.json takes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeagent import image
from edgeagent.agent import Agent
from edgeagent.jobs import steps
from edgeagent.jobs.journal import Journal
from edgeagent.mqtt.backoff import Backoff
from edgeagent.ota import gate, trial
from edgeagent.ports.linux import programs, rauc

MACHINE = Path(sys.argv[1])


def place() -> None:
    with (MACHINE / "steps").open("ab") as file:
        file.write(b".")
        count = file.tell()
    if count == int(os.environ.get("KILL_AT", "0")):
        power = os.environ["KILL"] == "power"
        if power:
            (MACHINE / "rebooting").touch()
        os.kill(os.getpid(), signal.SIGSTOP if power else signal.SIGKILL)


def between(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        place()
        result = function(*arguments)
        place()
        return result

    return call


def main() -> None:
    programs.kernel_boot = lambda: (MACHINE / "kernel").read_text()
    Backoff.next = lambda self: 0.05  # type: ignore[method-assign]
    steps.REBOOT_S = 20.0
    image._LOOK_S = 0.2
    rauc._POLL_S = 0.1
    gate._POLL_S = 0.1  # type: ignore[assignment]
    for holder, name in ((trial, "save"), (Journal, "write"), (Journal, "clear"), (rauc.Rauc, "_call")):
        setattr(holder, name, between(getattr(holder, name)))
    agent = Agent.from_file(sys.argv[2])
    agent.config.confirm_within = int(os.environ.get("CONFIRM", agent.config.confirm_within))

    @agent.health_check
    def application() -> tuple[bool, str]:
        running, sick = (MACHINE / "running").read_text(), (MACHINE / "sick").read_text().split()
        return running not in sick, f"the application of {running} is not well"

    @agent.may_update
    def idle(stage: str) -> tuple[bool, str]:
        return stage not in (MACHINE / "busy").read_text().split(), "in use"

    agent.run()


if __name__ == "__main__":
    main()
