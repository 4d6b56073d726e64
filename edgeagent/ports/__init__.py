# SPDX-License-Identifier: Apache-2.0
"""Where the agent meets a machine: files, TLS, reset, watchdog. `base.py` documents the interface."""

import sys

try:
    from typing import Any
except ImportError:
    pass


def detect(config: "Any" = None) -> "Any":
    """The port of this runtime. config: a Config whose state_dir and slots_dir, if set, replace the port's own."""
    if sys.implementation.name != "micropython":
        from edgeagent.ports.linux import LinuxPort

        return LinuxPort(config)
    if sys.platform == "esp32":
        from edgeagent.ports.esp32 import Esp32Port

        return Esp32Port(config)
    from edgeagent.ports.unix import UnixPort

    return UnixPort(config)
