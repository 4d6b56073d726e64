# SPDX-License-Identifier: Apache-2.0
"""What an update may replace: the application, the agent itself, the firmware, a Linux machine's whole image.

Each kind has a folder with a state of its own (trial.py), the application's being the port's `slots_dir` and the others
lying in that. One trial at a time: a version must prove itself on a device of which nothing else is in doubt.
A target is what fills and activates one kind: `slots.Slots`, or another class with its methods.
"""

import sys

from edgeagent.compat import MICROPYTHON, Any
from edgeagent.errors import UpdateError
from edgeagent.ota import trial

KINDS = ("application", "agent", "firmware", "image")


def folder(port: "Any", kind: str) -> str:
    """Where the state of a kind is. port: has slots_dir."""
    return port.slots_dir + ("" if kind == "application" else "/" + kind)  # type: ignore[no-any-return]


def find(port: "Any", job: "str | None" = None) -> "tuple[str, dict[str, Any]]":
    """(kind, trial.status) of what is on trial, or of what job execution `job` installed; ("", {}) if nothing is."""
    for kind in KINDS:
        status = trial.status(folder(port, kind))
        if status["job"] == job if job else status["state"] == "trial":
            return kind, status
    return "", {}


def name(job: str, execution: int, queued: "int | None") -> str:
    """Of an execution, in the state of what it installs. A job that was deleted may leave its id to another one."""
    return "%s/%d/%s" % (job, execution, queued)


def target(port: "Any", kind: str) -> "Any":
    """What installs a kind. Raises UpdateError "type" if this device cannot."""
    made: "Any"
    if kind == "application":
        from edgeagent.ota.slots import Slots as made
    elif kind == "agent" and MICROPYTHON:
        from edgeagent.ota.generations import Generations as made
    elif sys.platform == "esp32" and kind == "firmware":
        from edgeagent.ota.partition import Firmware

        return Firmware(folder(port, kind), port)
    else:
        raise UpdateError("type", kind if MICROPYTHON else kind + ": use pip, RAUC or Greengrass")
    return made(folder(port, kind))
