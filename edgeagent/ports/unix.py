# SPDX-License-Identifier: Apache-2.0
"""MicroPython's unix port: virtual boards (with a fake `machine` that can reset) and plain processes.

A plain process restarts by exiting with status 75; whoever started it starts it again.
"""

import machine

from edgeagent.ports.micropython import MicroPythonPort

try:
    from typing import Any
except ImportError:
    pass


class UnixPort(MicroPythonPort):
    """See base.py. A fake `machine` may name the emulated hardware by BOARD and CHIP."""

    name = "unix"

    def __init__(self, config: "Any" = None) -> None:
        MicroPythonPort.__init__(self, config)
        if hasattr(machine, "reset"):  # the unix port's own `machine` has none
            self.machine = machine

    def facts(self) -> "dict[str, Any]":
        found = MicroPythonPort.facts(self)
        found["board"] = getattr(self.machine, "BOARD", "UNIX_VIRTUAL" if self.machine else "UNIX")
        found["chip"] = getattr(self.machine, "CHIP", "host")
        return found
