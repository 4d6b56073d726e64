# SPDX-License-Identifier: Apache-2.0
"""However bad an application is, the device stays reachable.

A version on trial that escapes goes back to the one before. A confirmed one that crashes MAX_CRASHES times in a row
makes room for the bare agent for one boot, so that it can be updated; so does a slot without the application.
"""

from edgeagent import log
from edgeagent.compat import Any, exc_text, exists, traceback_text
from edgeagent.ota import trial

MAX_CRASHES = 5


def choose(root: str, application: str, cause: str) -> "tuple[str | None, bool]":
    """Boot: (folder of the slot whose application is to run, or None for the bare agent; is it on trial)."""
    slot = trial.boot(root, cause)
    status = trial.status(root)
    if slot:
        if status["state"] == "trial" and trial.Running.slot == status["active"]:
            return slot, True
        crash = last_crash(root)
        if crash["count"] >= MAX_CRASHES:
            _note(root, 0, crash["reason"])
        else:
            for end in (".mpy", ".py", ""):
                if exists(slot + "/" + application.replace(".", "/") + end):
                    return slot, False
    return None, False


def escaped(root: str, error: BaseException, stable: bool) -> str:
    """The application ended with `error`: log and record it; the reason in one line: type, message, file and line."""
    text = traceback_text(error, 1200)
    log.error("launch", "%s", text)
    reason = exc_text(error)[:180]
    at = text.rfind('File "')
    if at >= 0:
        file, _, line = text[at + 6 :].partition('", line ')
        reason += " (%s:%s)" % (file[file.rfind("/") + 1 :], line.split("\n")[0].split(",")[0])
    failed(root, reason, stable)
    return reason


def failed(root: str, reason: str, stable: bool = False) -> None:
    """Record why the application ended; a trial is rolled back.

    stable: it had run long enough for this not to count as one of a row.
    """
    count = 1 if stable else last_crash(root)["count"] + 1
    _note(root, 0 if trial.failed(root, reason) else count, reason)


def _note(root: str, count: int, reason: str) -> None:
    try:
        trial.write_sealed(root + "/crash.json", {"count": count, "reason": reason[:240]})
    except OSError:
        pass  # a full file system must not keep the device from restarting


def last_crash(root: str) -> "dict[str, Any]":
    """{"count": escapes in a row, "reason": of the last one}."""
    return trial.read_sealed(root + "/crash.json") or {"count": 0, "reason": ""}


def backoff(root: str) -> int:
    """Seconds to wait before the restart: 0 after a rollback, else 2 to 32."""
    count = int(last_crash(root)["count"])
    return count and min(1 << count, 32)
