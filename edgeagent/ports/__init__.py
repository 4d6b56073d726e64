# SPDX-License-Identifier: Apache-2.0
"""Where the agent meets a machine: files, TLS, reset, watchdog. `base.py` documents the interface."""

import sys

from edgeagent.compat import MICROPYTHON, Any


def detect(config: Any = None) -> Any:
    """The port of this runtime. config: a Config whose state_dir and slots_dir, if set, replace the port's own."""
    port: Any
    if not MICROPYTHON:
        from edgeagent.ports.linux import LinuxPort as port
    elif sys.platform == "esp32":
        from edgeagent.ports.esp32 import Esp32Port as port
    elif sys.platform == "rp2":
        from edgeagent.ports.rp2 import Rp2Port as port
    else:
        from edgeagent.ports.micropython import MicroPythonPort as port
    return port(config)
