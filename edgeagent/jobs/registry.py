# SPDX-License-Identifier: Apache-2.0
"""Which function does a job operation. Built-in ones are loaded when a job needs them, and dropped on boards after it.

A built-in operation NAME is the module `edgeagent.jobs.NAME` (`-` is `_` there) with `async def run(job)` and the
constant RESUME.
"""

import gc
import sys

from edgeagent.compat import MICROPYTHON, Any
from edgeagent.errors import ConfigError
from edgeagent.jobs.protocol import is_name

_BUILT_IN = ("afr_ota", "config", "diagnostics", "ota", "reboot", "rollback", "rotate-certificate", "steps", "trust")


class Handlers:
    """The operations of one agent. An application may replace a built-in one by registering the same name."""

    def __init__(self) -> None:
        self._known: "dict[str, Any]" = {}
        self.resident = list(sys.modules)  # what is loaded from now on is loaded on demand

    def register(self, operation: str, function: "Any", resume: bool = False) -> None:
        """function: coroutine function of a JobContext. resume: call it again, with `job.resumed`, after a reset.

        Raises ConfigError if the name cannot stand in a job document.
        """
        if not is_name(operation):
            raise ConfigError("job %s" % operation, "must be 1 to 64 letters, digits, - or _")
        self._known[operation] = function, resume

    def get(self, operation: str) -> "tuple[Any, bool] | None":
        """(function, resume) of an operation, or None if this device does not know it."""
        if operation in _BUILT_IN and operation not in self._known:
            operation = "edgeagent.jobs." + operation.replace("-", "_")
            try:
                __import__(operation)
            except ImportError as error:
                if operation not in str(error):
                    raise
                return None  # this device does not have it: programs need Linux, and a board may leave files out
            module = sys.modules[operation]
            return module.run, module.RESUME
        return self._known.get(operation)


def unload(names: "Any", resident: "Any" = (), prefix: str = "edgeagent.") -> None:
    """On boards, forget modules that have done their work. Elsewhere RAM is not worth a second import.

    names: of modules. resident: if given, all that are not in it go as well, if their names begin with `prefix`.
    """
    if MICROPYTHON:
        for name in list(sys.modules):
            if name in names or (resident and name not in resident and name.startswith(prefix)):
                del sys.modules[name]
                parent, _, child = name.rpartition(".")
                if hasattr(sys.modules.get(parent), child):  # else it has just gone as well, or there is none
                    delattr(sys.modules[parent], child)
        gc.collect()
