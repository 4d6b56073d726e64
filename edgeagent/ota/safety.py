# SPDX-License-Identifier: Apache-2.0
"""However bad an application is, the device stays reachable.

A version on trial that escapes goes back to the one before. A confirmed one that crashes MAX_CRASHES times in a row
makes room for the bare agent for an hour, so that it can be updated; so does a slot without the application. A restart
by the watchdog is a crash, too.
"""

import hashlib
import json

from edgeagent import log
from edgeagent.compat import MICROPYTHON, Any, exc_text, exists, read_file, remove_tree, traceback_text, write_atomic
from edgeagent.errors import ConfigError
from edgeagent.ota import trial

MAX_CRASHES = 3
KEPT = "/agent.json"  # sealed: the execution, a path, and what the configuration there was before the update
BARE_S = 3600  # what made the application crash may pass by itself


def choose(root: str, application: str, cause: str) -> "tuple[str | None, int]":
    """Boot: (folder to import the application from, or None for the bare agent; seconds, 0 for no limit).

    After so many seconds a trial is over in any case, and the bare agent makes room for the application again.
    """
    for _ in (0, 1):  # a read may go wrong once
        try:
            return _choose(root, application, cause)
        except OSError as error:
            log.error("launch", "%s", exc_text(error))
    trial.Running.slot = ""
    return None, BARE_S


def _choose(root: str, application: str, cause: str) -> "tuple[str | None, int]":
    slot = trial.boot(root, cause)
    status = trial.status(root)
    if status["state"] == "rolled_back":
        put_back(root, status["job"])
    if slot:
        if MICROPYTHON and exists(slot + ".idx"):
            from edgeagent.ota.store import mount

            slot = mount(slot)
        if status["state"] == "trial" and trial.Running.slot == status["active"]:
            return slot, 2 * status["deadline_s"]
        crash = last_crash(root)
        if cause[:3] == "WDT":
            # Where every reset is the watchdog's (rp2), one that `failed` has counted comes here as well.
            crash["count"] += not crash.get("fresh")
            _note(root, crash["count"], crash["reason"] or "restarted by the watchdog", False)
        if crash["count"] >= MAX_CRASHES:
            _note(root, 0, crash["reason"])
            return None, BARE_S
        for end in (".mpy", ".py", ""):
            if exists(slot + "/" + application.replace(".", "/") + end):
                return slot, 0
    return None, 0


def late(root: str) -> bool:
    """The time of `choose` is over: end a trial that is still one, which is for guard.py if the agent runs."""
    return trial.failed(root, "did not end: neither confirmed nor given up in twice its time")


def keep(root: str, path: str, job: str) -> None:
    """Before an update: keep a copy of the configuration, with which the service was reached. Raises OSError.

    A row of crashes ends here: what comes is another version.
    """
    if last_crash(root)["count"]:
        settled(root)
    text = read_file(path, 8192)
    if text:
        text = b"%s\n%s\n%s" % (job.encode(), path.encode(), text)
        write_atomic(root + KEPT, hashlib.sha256(text).digest()[:8] + text)


def put_back(root: str, job: "str | None" = None) -> None:
    """Once, the configuration from before the version that `job` has tried, or from before the latest one."""
    try:
        raw = read_file(root + KEPT, 9000) or b""
        words = raw[8:].split(b"\n", 2)
        # Which has no seal of its own: a decayed copy of it is worse than none.
        if hashlib.sha256(raw[8:]).digest()[:8] == raw[:8] and words[0] == (job.encode() if job else words[0]):
            if read_file(words[1].decode(), 8192) != words[2]:
                write_atomic(words[1].decode(), words[2])
            remove_tree(root + KEPT)
    except OSError:
        pass  # the next boot tries again


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
    # A trial of the agent ends as well: it must run what the agent before it ran.
    ended = trial.failed(root, reason) or trial.failed(root + "/agent", reason)
    _note(root, 0 if ended else count, reason)


def cancel(port: "Any", record: "dict[str, Any]") -> None:
    """End the trial of an execution that the service has ended, if it has one, and restart. record: its journal's."""
    from edgeagent.ota import kinds

    try:
        name = kinds.name(record["jobId"], record["executionNumber"], record["queuedAt"])
        kind = kinds.find(port, name)[0]
        if kind and trial.failed(kinds.folder(port, kind), "the service ended the job"):
            port.reset()
    except OSError:
        pass  # then it ends at its deadline


def _note(root: str, count: int, reason: str, fresh: bool = True) -> None:
    try:
        trial.write_sealed(root + "/crash.json", {"count": count, "reason": reason[:240], "fresh": fresh})
    except OSError:
        pass  # a full file system must not keep the device from restarting


def last_crash(root: str) -> "dict[str, Any]":
    """{"count": escapes in a row, "reason": of the last one}."""
    return trial.read_sealed(root + "/crash.json") or {"count": 0, "reason": ""}


def settled(root: str) -> None:
    """A row of crashes is over."""
    _note(root, 0, last_crash(root)["reason"])


def backoff(root: str) -> int:
    """Seconds to wait before the restart: 0 after a rollback, else 2 to 8."""
    count = int(last_crash(root)["count"])
    return count and 1 << count


def application() -> str:
    """Boards: the module's name, of agent.json."""
    try:
        with open("/agent.json") as f:
            return str(json.load(f).get("application") or "app")
    except (OSError, ValueError, AttributeError):
        return "app"


def bare(root: str) -> "Any":
    """Boards: run the agent alone. root: folder of the slots. Raises ConfigError."""
    try:
        __import__("wifi")  # the board's own, which brings its network up: no application does it now
    except ImportError:
        pass
    from edgeagent.agent import Agent

    try:
        agent = Agent.from_file()
    except ConfigError:
        put_back(root)  # an application has damaged it
        raise
    agent.run()
