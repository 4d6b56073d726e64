# SPDX-License-Identifier: Apache-2.0
"""Job documents: which operation one asks for. Pure; every refusal names the member.

Two forms are understood:
    {"operation": "NAME", ...arguments}                      ours (and the legacy form of the AWS device client)
    {"version": "1.0", "steps": [{"action": ...reboot.sh}]}  what the managed template AWS-Reboot makes
Source: aws-iot-protocol.md sections 5.1 and 5.3.
"""

from edgeagent.compat import const
from edgeagent.config import LIMITS
from edgeagent.errors import JobRejected
from edgeagent.jobs.protocol import is_name

try:
    from typing import Any
except ImportError:
    pass

_DEPTH = const(16)


def size(value: object, depth: int = 0) -> int:
    """Bytes of `value` as compact JSON (as the service sends it), counted without building the text.

    Raises JobRejected if it is nested deeper than 16 levels: recursion is short on boards.
    """
    if depth > _DEPTH:
        raise JobRejected("job document is nested deeper than %d levels" % _DEPTH)
    if isinstance(value, str):
        return len(value.encode()) + 2 + value.count('"') + value.count("\\") + value.count("\n")
    if isinstance(value, dict):
        total = 1
        for key in value:
            total += size(key, depth + 1) + size(value[key], depth + 1) + 2
        return max(total, 2)
    if isinstance(value, list):
        total = 1
        for member in value:
            total += size(member, depth + 1) + 1
        return max(total, 2)
    return len(str(value))


def too_large() -> str:
    """The reason given for a document over the cap."""
    return "job document is larger than the %d bytes this device takes" % LIMITS.JOB_DOCUMENT


def parse(document: object) -> "tuple[str, dict[str, Any]]":
    """The operation that a job document asks for, and its arguments (all other members).

    Raises JobRejected naming the member, or the cap if the document is too large for this device.
    """
    if not isinstance(document, dict):
        raise JobRejected("job document is not an object")
    if size(document) > LIMITS.JOB_DOCUMENT:
        raise JobRejected(too_large())
    if "steps" in document:
        return _steps(document["steps"]), {}
    operation = document.get("operation")
    if not isinstance(operation, str) or not is_name(operation, 64):
        raise JobRejected("job document: operation must be text of 1 to 64 letters, digits, - and _")
    arguments = {}
    for name in document:
        if name != "operation":
            arguments[name] = document[name]
    return operation, arguments


def _member(value: object, name: str, where: str) -> object:
    if not isinstance(value, dict) or name not in value:
        raise JobRejected("job document: %s.%s is missing" % (where, name))
    return value[name]


def _steps(steps: object) -> str:
    if not isinstance(steps, list) or not steps:
        raise JobRejected("job document: steps must be a list of at least one step")
    action = _member(steps[0], "action", "steps[0]")
    kind = _member(action, "type", "steps[0].action")
    given = _member(action, "input", "steps[0].action")
    if len(steps) == 1 and kind == "runHandler" and _member(given, "handler", "steps[0].action.input") == "reboot.sh":
        return "reboot"
    raise JobRejected("job document: steps are not supported on this port")
