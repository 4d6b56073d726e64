# SPDX-License-Identifier: Apache-2.0
"""Job operation `steps` (Linux): the AWS device client's documents, and so the AWS managed templates.

    {"version": "1.0", "includeStdOut": true, "resume": false,
     "conditions": [{"key": "site", "value": ["berlin", "paris"], "type": "stringEqual"}],
     "steps": [{"action": {"name": "Install", "type": "runHandler", "runAsUser": "", "allowStdErr": 8,
                           "ignoreStepFailure": false, "input": {"handler": "install.sh", "args": ["vim"]}}},
               {"action": {"name": "Check", "type": "runCommand", "input": {"command": "check,--all"}}}],
     "finalStep": {"action": ...}}

What may run is set in agent.json, or everything is rejected:
    "handlers": {"path": folder*, "allow": [programs], "users": [names for runAsUser], "timeout": seconds a step, 3600}
Handlers and commands are programs of that folder (ports/linux/programs.py), never of PATH. `reboot.sh` need not be in
it: the agent then asks systemd; either way a changed boot id of the machine is the proof. Differences from the device
client, on purpose (aws-iot-protocol.md 5.1): the exit status counts with allowStdErr too, which allows so many lines;
conditions are evaluated, of the keys that are attributes of this device; a handler's first argument is always empty,
since the agent has become runAsUser itself. `resume` is ours: a step that was interrupted by a restart is run again
instead of failing the job.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, NoReturn

from edgeagent import log
from edgeagent.errors import JobFailed, JobRejected
from edgeagent.jobs.condition import JobSkipped
from edgeagent.ports.linux import programs

RESUME = True
REBOOT = "reboot.sh"
REBOOT_ARGV = ["/usr/bin/systemctl", "reboot"]
REBOOT_S = 300.0  # until the machine must be going down
_TIMEOUT_S = 3600


class Step:
    """A checked action: name, program and arguments, and what its failure means."""

    def __init__(self, action: Any, where: str) -> None:
        """Raises JobRejected naming the member."""
        _want(isinstance(action, dict), f"{where}: must be an object")
        self.name = _text(action, "name", where)
        kind = action.get("type")
        given = action.get("input")
        _want(kind in ("runHandler", "runCommand"), f"{where}.type: must be runHandler or runCommand")
        _want(isinstance(given, dict), f"{where}.input: must be an object")
        self.folder = "default"
        if kind == "runHandler":
            self.program = _text(given, "handler", f"{where}.input")
            self.folder = _text(given, "path", f"{where}.input", "default") or "default"
            arguments = given.get("args", [])
            _want(isinstance(arguments, list), f"{where}.input.args: must be a list")
            self.arguments = [""]
            for argument in arguments:
                _want(_plain(argument), f"{where}.input.args: must be texts")
                self.arguments.append(argument)
        else:
            # A comma separates, "\\," is one (5.1).
            words = _text(given, "command", f"{where}.input").replace("\\,", "\0").split(",")
            self.program, *self.arguments = [word.strip(" ").replace("\0", ",") for word in words]
        self.user = _text(action, "runAsUser", where, "")
        self.ignored = _flag(action, "ignoreStepFailure", where)
        self.lines = action.get("allowStdErr")
        good = self.lines is None or (type(self.lines) is int and self.lines >= 0)
        _want(good, f"{where}.allowStdErr: must be a number of lines")
        self.path = ""
        self.owner: dict[str, Any] = {}

    def admit(self, rules: Rules) -> None:
        """Find the program and the user. Raises JobRejected if either is not allowed."""
        _want(self.folder in ("default", rules.path), f"step {self.name}: path: only the handlers folder of agent.json")
        if self.program not in rules.allow:
            raise JobRejected(f"step {self.name}: {self.program[:64]!r} is not in handlers.allow of agent.json")
        try:
            self.owner = programs.account(self.user, rules.users)
            if self.program != REBOOT or os.path.lexists(f"{rules.path}/{REBOOT}"):
                self.path = programs.locate(rules.path, self.program)
        except JobRejected as error:
            raise JobRejected(f"step {self.name}: {error}") from None


class Rules:
    """`handlers` of agent.json, checked."""

    def __init__(self, agent: Any) -> None:
        """Raises JobRejected naming what has to be configured."""
        given = getattr(agent.config, "handlers", None)
        if not given:
            raise JobRejected("no programs may run here: agent.json has no handlers {path, allow}")
        path, timeout = given.get("path"), given.get("timeout", _TIMEOUT_S)
        self.allow, self.users = given.get("allow", []), given.get("users", [])
        good = isinstance(path, str) and path and isinstance(self.allow, list) and isinstance(self.users, list)
        if not good or type(timeout) is not int or not 0 < timeout <= 604800:
            raise JobRejected("handlers of agent.json must be {path, allow: [], users: [], timeout: seconds}")
        self.timeout: int = timeout
        self.path = os.path.join(os.path.dirname(os.path.abspath(agent.config_path or "agent.json")), path)


def _want(good: object, problem: str) -> None:
    if not good:
        raise JobRejected("job document: " + problem)


def _plain(value: object) -> bool:
    """Text that can be an argument of a program."""
    try:
        return isinstance(value, str) and b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _text(holder: dict[str, Any], name: str, where: str, default: str | None = None) -> str:
    """A text member; a required one, without a default, is not empty."""
    value = holder.get(name, default)
    _want(_plain(value) and (value or default is not None), f"{where}.{name}: must be text")
    return str(value)


def _flag(holder: dict[str, Any], name: str, where: str) -> bool:
    """true or false, also as text, which is what the managed templates make."""
    value = holder.get(name, False)
    _want(isinstance(value, bool) or value in ("true", "false", ""), f"{where}.{name}: must be true or false")
    return value in (True, "true")


def plan(document: dict[str, Any]) -> tuple[list[Step], Step | None]:
    """The steps of a document and its final step. Raises JobRejected naming the member; nothing has run then."""
    if "steps" not in document:  # the older form
        given: dict[str, Any] = {name: document[name] for name in ("args", "path") if name in document}
        given["handler"] = name = document.get("operation")
        action: dict[str, Any] = {"name": name, "type": "runHandler", "input": given}
        action.update({name: document[name] for name in ("runAsUser", "allowStdErr") if name in document})
        return [Step(action, "document")], None
    entries = document["steps"]
    _want(isinstance(entries, list) and entries, "steps: must be a list with an entry")
    steps = []
    for number, entry in enumerate(entries):
        where = f"steps[{number}]"
        _want(isinstance(entry, dict), f"{where}: must be an object")
        steps.append(Step(entry.get("action"), where + ".action"))
    last = document.get("finalStep")
    _want(last is None or isinstance(last, dict), "finalStep: must be an object")
    return steps, Step(last.get("action"), "finalStep.action") if last is not None else None


def _conditions(document: dict[str, Any], attributes: dict[str, Any]) -> None:
    """Raises JobSkipped if an attribute of this device has none of the values; keys it does not know are ignored."""
    entries = document.get("conditions", [])
    _want(isinstance(entries, list), "conditions: must be a list")
    for number, entry in enumerate(entries):
        where = f"conditions[{number}]"
        _want(isinstance(entry, dict), f"{where}: must be an object")
        key, values = _text(entry, "key", where), entry.get("value")
        _want(isinstance(values, list) and values and all(map(_plain, values)), f"{where}.value: must be texts")
        _want(entry.get("type", "stringEqual") == "stringEqual", f"{where}.type: must be stringEqual")
        held = attributes.get(key)
        text = str(held).lower() if isinstance(held, bool) else str(held)
        if held is not None and text not in values:
            raise JobSkipped(f"condition not met: {key} is {text[:100]}", {"skipped": where})


async def run(job: Any) -> dict[str, Any]:
    """Handler. {"steps": number, "stdout", "stderr"} of a job whose steps have all succeeded or may fail.

    Everything is checked before the first step. Raises JobRejected, JobSkipped, JobFailed naming the step.
    """
    document = job.document
    rules = Rules(job.agent)
    steps, last = plan(document)
    show = _flag(document, "includeStdOut", "document")
    again = _flag(document, "resume", "document")
    if not job.resumed:
        _conditions(document, job.agent.attributes.full())
    everything = steps + [last] if last else steps
    for step in everything:
        step.admit(rules)
    results: dict[str, Any] = {"steps": len(everything), "stdout": "", "stderr": ""}
    first = _interrupted(job, everything, again) if job.resumed else 0
    for number in range(first, len(everything)):
        step = everything[number]
        job.checkpoint(step=number, running=True, process="")
        await job.progress(100 * number // len(everything), step=step.name)
        try:
            await _one(job, step, rules, results)
        except JobFailed as error:
            details = {name: results[name] for name in ("stdout", "stderr") if show or name == "stderr"}
            if not step.ignored:
                raise JobFailed(f"step {step.name}: {error}", {**details, **error.body}) from None
            log.warning("steps", "%s: ignored: %s", step.name, error)
        job.checkpoint(step=number + 1, running=False)
    if not show:
        del results["stdout"]
    return results


def _interrupted(job: Any, steps: list[Step], again: bool) -> int:
    """The number of the step to go on with after a restart. Raises JobFailed if one was cut short."""
    number = job.data.get("step", 0)
    if not job.data.get("running"):
        return int(number)
    step = steps[number]
    process = job.data["process"]
    if step.program == REBOOT and process and process.split(" ")[0] != programs.kernel_boot():
        job.checkpoint(step=number + 1, running=False)
        return int(number) + 1
    if process and programs.reap(process):
        log.warning("steps", "%s: was still running, killed", step.name)
    if not again:
        raise JobFailed(f"step {step.name}: interrupted by a restart ({job.agent.port.reset_cause()})")
    return int(number)


async def _one(job: Any, step: Step, rules: Rules, results: dict[str, Any]) -> None:
    """Run a step; its output is added to `results`. Raises JobFailed."""
    argv = [step.path, *step.arguments] if step.path else REBOOT_ARGV
    status, out, err = await programs.execute(
        argv,
        rules.timeout,
        step.owner,
        {"EDGEAGENT_JOB": job.id, "EDGEAGENT_STEP": step.name},
        lambda stream, line: log.info("steps", "%s %s| %s", step.name, stream, line),
        lambda process: job.checkpoint(process=process),
    )
    results["stdout"] = (results["stdout"] + out.tail())[-1024:]
    results["stderr"] = (results["stderr"] + err.tail())[-1024:]
    if status < 0:
        raise JobFailed(f"killed by signal {-status}")
    if status:
        raise JobFailed(f"exited with status {status}")
    if step.lines is not None and err.lines() > step.lines:
        raise JobFailed(f"{err.lines()} lines on stderr, {step.lines} allowed")
    if step.program == REBOOT:
        await _going_down()


async def _going_down() -> NoReturn:
    """Wait for the machine to end this process. Raises JobFailed if it does not."""
    await asyncio.sleep(REBOOT_S)
    raise JobFailed(f"the machine did not restart within {REBOOT_S:g} s")
