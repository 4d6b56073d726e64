# SPDX-License-Identifier: Apache-2.0
"""Which function does a job operation. Built-in ones are loaded when a job needs them, and dropped on boards after it.

A built-in operation NAME is the module `edgeagent.jobs.NAME` with `async def run(job)` and the constant RESUME.
"""

import gc
import sys

from edgeagent import compat
from edgeagent.compat import Any
from edgeagent.errors import ConfigError
from edgeagent.jobs.protocol import is_name

BUILT_IN = ("config", "diagnostics", "ota", "reboot")
# What a built-in handler may bring into memory besides itself.
_LOADED = ("edgeagent.jobs.", "edgeagent.ota.", "edgeagent.config")


class Handlers:
    """The operations of one agent. An application may replace a built-in one by registering the same name."""

    def __init__(self) -> None:
        self._known: "dict[str, Any]" = {}
        self._before: "set[str] | None" = None

    def register(self, operation: str, function: "Any", resume: bool = False) -> None:
        """function: coroutine function of a JobContext. resume: call it again, with `job.resumed`, after a reset.

        Raises ConfigError if the name cannot stand in a job document.
        """
        if not is_name(operation, 64):
            raise ConfigError("job " + str(operation)[:64], "must be 1 to 64 letters, digits, - or _")
        self._known[operation] = (function, resume)

    def get(self, operation: str) -> "tuple[Any, bool] | None":
        """(function, resume) of an operation, or None if this device does not know it."""
        found = self._known.get(operation)
        if found is None and operation in BUILT_IN:
            name = "edgeagent.jobs." + operation
            if self._before is None:
                self._before = set(sys.modules)
            __import__(name)
            module = sys.modules[name]
            found = (module.run, module.RESUME)
        return found

    def release(self) -> None:
        """A job is over: on boards give back the RAM of the modules that were loaded for it."""
        before = self._before
        self._before = None
        if before is not None:
            unload([name for name in sys.modules if name not in before and name.startswith(_LOADED)])


def unload(names: "list[str]") -> None:
    """On boards, forget modules that have done their work. Elsewhere RAM is not worth a second import."""
    if compat.MICROPYTHON:
        for name in names:
            cut = name.rfind(".")
            parent = sys.modules.get(name[:cut])
            sys.modules.pop(name, None)
            if hasattr(parent, name[cut + 1 :]):
                delattr(parent, name[cut + 1 :])
        gc.collect()
