# SPDX-License-Identifier: Apache-2.0
"""MicroPython's unix port: virtual boards (with a fake `machine` that can reset) and plain processes.

A plain process restarts by exiting with status 75; whoever started it starts it again.
"""

import machine

from edgeagent.compat import Any
from edgeagent.ports.micropython import MicroPythonPort


class UnixPort(MicroPythonPort):
    """See base.py. A fake `machine` may name the emulated hardware by BOARD and CHIP."""

    name = "unix"
    machine = machine if hasattr(machine, "reset") else None  # the unix port's own `machine` has none

    def facts(self) -> "dict[str, Any]":
        found = MicroPythonPort.facts(self)
        found["board"] = getattr(self.machine, "BOARD", "UNIX_VIRTUAL" if self.machine else "UNIX")
        found["chip"] = getattr(self.machine, "CHIP", "host")
        return found
