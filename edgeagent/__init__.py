# SPDX-License-Identifier: Apache-2.0
"""edgeagent: the device side of a managed fleet, on MicroPython and CPython.

What applications import is what stands here, and on a board there is nothing else:

    from edgeagent import Agent, JobFailed, log

Nothing is imported eagerly. The two tables are read by the linker too (edgefleet/artifacts/link.py): on boards this
package is one file that holds these names and all they need.
"""

import sys

__version__ = "0.1.0"

PUBLIC = {  # name → module that defines it
    "Agent": "edgeagent.agent",
    "AgentError": "edgeagent.errors",
    "ConfigError": "edgeagent.errors",
    "JobFailed": "edgeagent.errors",
    "JobRejected": "edgeagent.errors",
    "ProtocolError": "edgeagent.errors",
    "Refused": "edgeagent.errors",
    "TransportError": "edgeagent.errors",
    "UpdateError": "edgeagent.errors",
}
PUBLIC_MODULES = {  # name → module, and what of it is public
    "compat": "edgeagent.compat read_file write_atomic",
    "launch": "edgeagent.ota.launch run failed backoff",
    "log": "edgeagent.log info warning error",
}


def __getattr__(name):  # type: ignore[no-untyped-def]
    module = PUBLIC.get(name) or PUBLIC_MODULES.get(name, "").split(" ")[0]
    if not module and name[:1] != "_" and sys.implementation.name == "micropython":
        module = "edgeagent." + name  # asked here before a submodule is looked for (`from edgeagent import topics`)
    if not module:
        raise AttributeError(name)
    __import__(module)
    return getattr(sys.modules[module], name) if name in PUBLIC else sys.modules[module]
