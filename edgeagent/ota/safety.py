# SPDX-License-Identifier: Apache-2.0
"""However bad an application is, the device stays reachable.

A version on trial that escapes goes back to the one before. A confirmed one that crashes MAX_CRASHES times in a row
makes room for the bare agent for one boot, so that it can be updated; so does a slot without the application.
"""

from edgeagent import log
from edgeagent.compat import Any, const, exc_text, exists, traceback_text
from edgeagent.ota import state, trial

MAX_CRASHES = 5
_CRASH = "/crash.json"
_TRACE_CHARS = const(1200)


def choose(root: str, application: str, cause: str) -> "tuple[str | None, bool]":
    """Boot: (folder of the slot whose application is to run, or None for the bare agent; is it on trial)."""
    slot = trial.boot(root, cause)
    if slot is None:
        return None, False
    if trial.status(root)["state"] == "trial" and trial.Running.slot == trial.status(root)["active"]:
        return slot, True
    crash = last_crash(root)
    if crash and crash["count"] >= MAX_CRASHES:
        _note(root, 0, crash["reason"])
        return None, False
    path = slot + "/" + application.replace(".", "/")
    return (slot if exists(path + ".mpy") or exists(path + ".py") or exists(path) else None), False


def escaped(root: str, error: BaseException, stable: bool) -> str:
    """The application ended with `error`: log and record it; the reason in one line."""
    log.error("launch", "%s", traceback_text(error, _TRACE_CHARS))
    reason = describe(error)
    failed(root, reason, stable)
    return reason


def failed(root: str, reason: str, stable: bool = False) -> None:
    """Record why the application ended; a trial is rolled back.

    stable: it had run long enough for this not to count as one of a row.
    """
    crash = last_crash(root)
    count = 1 if stable or crash is None else crash["count"] + 1
    _note(root, 0 if trial.failed(root, reason) else count, reason)


def _note(root: str, count: int, reason: str) -> None:
    try:
        state.write_sealed(root + _CRASH, {"count": count, "reason": reason[:240]})
    except OSError:
        pass  # a full file system must not keep the device from restarting


def last_crash(root: str) -> "dict[str, Any] | None":
    """{"count": escapes in a row, "reason": of the last one}, or None."""
    return state.read_sealed(root + _CRASH)


def backoff(root: str) -> int:
    """Seconds to wait before the restart: 0 after a rollback, else 2 to 32."""
    crash = last_crash(root)
    return min(1 << crash["count"], 32) if crash and crash["count"] else 0


def describe(error: BaseException) -> str:
    """One line for a status reason: type, message and the innermost file and line."""
    where = ""
    for line in traceback_text(error, 600).split("\n"):
        parts = line.split('"')
        if len(parts) == 3 and parts[0].strip() == "File":
            number = parts[2][7:].split(",")[0]  # `, line 12, in f`
            where = " (%s:%s)" % (parts[1][parts[1].rfind("/") + 1 :], number)
    return exc_text(error)[:180] + where
