# SPDX-License-Identifier: Apache-2.0
"""Job documents: which operation one asks for. Pure; every refusal names the member.

Two forms are understood:
    {"operation": "NAME", ...arguments}                      ours (and the legacy form of the AWS device client)
    {"version": "1.0", "steps": [{"action": ...reboot.sh}]}  what the managed template AWS-Reboot makes
Source: aws-iot-protocol.md sections 5.1 and 5.3.
"""

from edgeagent.compat import Any
from edgeagent.errors import JobRejected
from edgeagent.jobs.protocol import is_name
from edgeagent.limits import LIMITS


def size(value: object) -> int:
    """Bytes of `value` as compact JSON (as the service sends it; escapes aside), counted without building the text."""
    if isinstance(value, dict):
        return 1 + sum(size(name) + size(value[name]) + 2 for name in value)
    if isinstance(value, list):
        return 1 + sum(size(member) + 1 for member in value)
    return len(value.encode()) + 2 if isinstance(value, str) else len(str(value))


def too_large() -> str:
    """The reason given for a document over the cap."""
    return "job document is larger than the %d bytes this device takes" % LIMITS.JOB_DOCUMENT


def parse(document: object) -> "tuple[str, dict[str, Any]]":
    """The operation that a job document asks for, and its arguments (all other members).

    Raises JobRejected naming the member, or the cap if the document is too large for this device.
    """
    if not isinstance(document, dict):
        raise JobRejected("job document is not an object")
    try:
        if size(document) > LIMITS.JOB_DOCUMENT:
            raise JobRejected(too_large())
    except RuntimeError:  # recursion is short on boards
        raise JobRejected("job document is nested too deeply") from None
    if "steps" in document:
        return _steps(document["steps"]), {}
    operation = document.get("operation")
    if not isinstance(operation, str) or not is_name(operation, 64):
        raise JobRejected("job document: operation must be text of 1 to 64 letters, digits, - and _")
    return operation, {name: document[name] for name in document if name != "operation"}


def _steps(steps: object) -> str:
    try:
        action = steps[0]["action"]  # type: ignore[index]
        kind, handler = action["type"], action["input"].get("handler")
    except (TypeError, KeyError, IndexError, AttributeError):
        raise JobRejected("job document: steps must be a list of {action: {type, input}}") from None
    if len(steps) == 1 and kind == "runHandler" and handler == "reboot.sh":  # type: ignore[arg-type]
        return "reboot"
    raise JobRejected("job document: steps are not supported on this port")
