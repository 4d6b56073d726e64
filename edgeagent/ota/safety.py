# SPDX-License-Identifier: Apache-2.0
"""However bad an application is, the device stays reachable.

A version on trial that escapes goes back to the one before. A confirmed one that crashes MAX_CRASHES times in a row
makes room for the bare agent for an hour, so that it can be updated; so does a slot without the application. A restart
by the watchdog is a crash, too.
"""

import json

from edgeagent import log
from edgeagent.compat import MICROPYTHON, Any, exc_text, exists, read_file, remove_tree, traceback_text, write_atomic
from edgeagent.errors import ConfigError
from edgeagent.ota import trial

MAX_CRASHES = 3
_KINDS = ("/agent", "/firmware", "")  # folders below the slots, of what it can be the trial of; its own is the last
KEPT = "/agent.json"  # sealed: the execution, a path, and what the configuration there was before the update
BARE_S = 3600  # what made the application crash may pass by itself


def choose(root: str, application: str, cause: str) -> "tuple[str | None, int]":
    """Boot: (folder to import the application from, "" if there is none, None if it has to make room for the bare
    agent; seconds, 0 for no limit).

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
    limit = 0
    for kind in _KINDS:
        status = trial.status(root + kind)
        tried = status["state"] == "trial" and (kind or trial.Running.slot == status["active"])
        if tried:
            limit = 2 * status["deadline_s"]
        elif status["state"] == "rolled_back" and status["job"]:
            put_back(root, status["job"])
    if slot:
        if MICROPYTHON and exists(slot + ".idx"):
            from edgeagent.ota.store import mount

            slot = mount(slot)
        if tried:
            return slot, limit
        crash = last_crash(root)
        if cause[:3] == "WDT":
            # Where every reset is the watchdog's (rp2), one that `failed` has counted comes here as well.
            crash["count"] += not crash.get("fresh")
            _note(root, crash["count"], crash["reason"] or "restarted by the watchdog", False)
        if crash["count"] >= MAX_CRASHES:
            _note(root, 0, crash["reason"])
            return None, limit or BARE_S
        for end in (".mpy", ".py", ""):
            if exists(slot + "/" + application.replace(".", "/") + end):
                return slot, limit
    return "", limit


def late(root: str) -> bool:
    """The time of `choose` is over: end a trial that is still one, which is for guard.py if the agent runs."""
    return _end(root, "did not end: neither confirmed nor given up in twice its time")


def _end(root: str, reason: str) -> bool:
    """As trial.failed, whatever is on trial: it must run what ran before it."""
    ended = False
    for kind in _KINDS:
        try:
            ended = trial.failed(root + kind, reason) or ended
        except OSError:
            pass  # otadata, of a flash that fails: still on trial
    return ended


def keep(root: str, path: str, job: str) -> None:
    """Before an update: keep a copy of the configuration, with which the service was reached. Raises OSError.

    A row of crashes ends here: what comes is another version.
    """
    if last_crash(root)["count"]:
        settled(root)
    text = read_file(path, 8192)
    if text:
        text = b"%s\n%s\n%s" % (job.encode(), path.encode(), text)
        write_atomic(root + KEPT, trial.seal(text) + text)


def put_back(root: str, job: "str | None" = None) -> None:
    """Once, the configuration from before the version that `job` has tried, or from before the latest one."""
    try:
        # The configuration has no seal of its own: a decayed copy of it is worse than none.
        words = trial.unseal(read_file(root + KEPT, 9000)).split(b"\n", 2)
        if words[0] and words[0] == (job.encode() if job else words[0]):
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
    _note(root, 0 if _end(root, reason) else count, reason)


def cancel(port: "Any", record: "dict[str, Any]") -> None:
    """End the trial of an execution that the service has ended, if it has one, and restart. record: its journal's."""
    from edgeagent.ota import kinds

    try:
        name = kinds.name(record["jobId"], record["executionNumber"], record.get("queuedAt"))
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
    return count and 1 << min(count, MAX_CRASHES)


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
