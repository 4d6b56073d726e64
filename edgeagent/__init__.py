# SPDX-License-Identifier: Apache-2.0
"""edgeagent: the device side of a managed fleet, on MicroPython and CPython.

Nothing is imported eagerly: a board pays RAM for every module, so `Agent` is loaded on first use.
"""

import sys

__version__ = "0.1.0"


def __getattr__(name):  # type: ignore[no-untyped-def]
    if name == "Agent":
        from edgeagent.agent import Agent

        return Agent
    if name[:1] == "_" or sys.implementation.name != "micropython":
        raise AttributeError(name)
    # MicroPython asks here before it looks for a submodule (`from edgeagent import topics`).
    __import__("edgeagent." + name)
    return sys.modules["edgeagent." + name]
