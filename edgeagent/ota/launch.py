# SPDX-License-Identifier: Apache-2.0
"""Start the application of the right slot; what goes wrong decides about its trial. For boards and for Linux.

However bad an application is, the device stays reachable: a version on trial goes back to the one before, a confirmed
one that crashes MAX_CRASHES times in a row makes room for the bare agent for one boot, and so does an empty slot.
"""

import gc
import sys

from edgeagent import clock, log
from edgeagent.compat import MICROPYTHON, const, exc_text, exists, traceback_text
from edgeagent.ota import state, trial

try:
    from typing import Any
except ImportError:
    pass

MAX_CRASHES = const(5)
_STABLE_MS = const(600000)  # an application that ran so long before it crashed starts a new row
_RESERVE = const(1024)  # bytes kept for the end of an application that filled the heap
_CRASH = "/crash.json"  # {"count", "reason"}: the last escape, for diagnostics


def describe(error: BaseException) -> str:
    """One line for a status reason: type, message and the innermost file and line."""
    where = ""
    for line in traceback_text(error, 600).split("\n"):
        line = line.strip()
        if line.startswith('File "'):
            parts = line.split('"')
            number = parts[2].split(",")[1].strip().split(" ")[1] if parts[2].count(",") else "?"
            where = " (%s:%s)" % (parts[1][parts[1].rfind("/") + 1 :], number)
    return exc_text(error)[:180] + where


def last_crash(root: str) -> "dict[str, Any] | None":
    """{"count": escapes in a row, "reason": of the last one}, or None."""
    return state.read_sealed(root + _CRASH)


def _has(folder: str, module: str) -> bool:
    path = folder + "/" + module.replace(".", "/")
    return exists(path + ".mpy") or exists(path + ".py") or exists(path)


def run(root: str, application: str, bare: "Any", cause: str = "") -> str:
    """Boot a slot and run its application until it ends by itself.

    root: folder of the slots. application: module name; its `main()` is called if there is one. bare: called without
    arguments when there is no application to run. cause: the port's reset cause.
    Returns why it escaped: recorded, and the trial, if there was one, rolled back; the caller restarts the device after
    `backoff` seconds. Returns "" if it ended by itself, which the caller may call `failed` or a clean stop.
    Only SystemExit (a reset) passes, and KeyboardInterrupt unless the version is on trial.
    """
    before = set(sys.modules)
    reserve: "bytearray | None" = bytearray(_RESERVE)
    slot = trial.boot(root, cause)
    on_trial = slot is not None and trial.status(root)["state"] == "trial"
    crash = last_crash(root)
    start = clock.ticks()
    try:
        if slot is None or not (on_trial or _has(slot, application)):
            bare()
        elif not on_trial and crash and crash["count"] >= MAX_CRASHES:
            state.write_sealed(root + _CRASH, {"count": 0, "reason": crash["reason"]})
            bare()
        else:
            sys.path.insert(0, slot)
            __import__(application)
            if hasattr(sys.modules[application], "main"):
                sys.modules[application].main()
    except SystemExit:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not on_trial:
            raise
        reserve = None  # noqa: F841  from here on there is memory again
        _unload(before, application)
        reason = describe(error)
        log.error("launch", "%s", traceback_text(error, 1200))
        failed(root, reason, clock.elapsed_ms(start) >= _STABLE_MS)
        return reason
    return ""


def _unload(before: "set[str]", application: str) -> None:
    """Drop what the application had loaded: if it ran out of memory there is none to record that."""
    if MICROPYTHON:
        sys.modules.pop(application, None)
        gc.collect()
        for name in list(sys.modules):
            if name not in before:
                parent = sys.modules.get(name[: max(name.rfind("."), 0)])
                if hasattr(parent, name[name.rfind(".") + 1 :]):
                    delattr(parent, name[name.rfind(".") + 1 :])
                del sys.modules[name]
        gc.collect()


def failed(root: str, reason: str, stable: bool = False) -> None:
    """Record why the application ended; a trial is rolled back.

    stable: it had run long enough for this not to count as one of a row.
    """
    crash = last_crash(root)
    count = 1 if stable or crash is None else crash["count"] + 1
    rolled_back = trial.failed(root, reason)
    try:
        state.write_sealed(root + _CRASH, {"count": 0 if rolled_back else count, "reason": reason[:240]})
    except OSError:
        pass  # a full file system must not keep the device from restarting


def backoff(root: str) -> int:
    """Seconds to wait before the restart, so that a crashing application does not make a tight loop: 0 to 32."""
    crash = last_crash(root)
    return min(1 << crash["count"], 32) if crash and crash["count"] else 0
