# SPDX-License-Identifier: Apache-2.0
"""Job documents: which operation one asks for. Pure; every refusal names the member. Boards load it for each job.

Two forms are understood:
    {"operation": "NAME", ...arguments}                      ours (and the legacy form of the AWS device client)
    {"version": "1.0", "steps": [{"action": ...reboot.sh}]}  what the managed template AWS-Reboot makes
Source: aws-iot-protocol.md sections 5.1 and 5.3.
"""

from edgeagent.compat import const
from edgeagent.errors import JobRejected
from edgeagent.jobs.protocol import is_name

_DOCUMENT_BYTES = const(8192)  # such a document already needs 21 KB of heap as objects


def size(value: object) -> int:
    """Bytes of `value` as compact JSON (as the service sends it; escapes aside), counted without building the text."""
    if not isinstance(value, (dict, list)):
        return len(value.encode()) + 2 if isinstance(value, str) else len(str(value))
    total = 1
    for member in value:
        total += size(member) + 1
        if isinstance(value, dict):
            total += size(value[member]) + 1
    return total


def parse(document: object) -> str:
    """The operation that a job document asks for. Raises JobRejected naming the member, or the cap.

    document: None if it was too large to be received.
    """
    try:
        if not isinstance(document, dict) or size(document) > _DOCUMENT_BYTES:
            raise JobRejected("job document is no object of at most %d bytes" % _DOCUMENT_BYTES)
    except RuntimeError:  # recursion is short on boards
        raise JobRejected("job document is nested too deeply") from None
    operation = document.get("operation")
    if "steps" in document:
        try:
            (step,) = document["steps"]
            action = step["action"]
            if action["type"] == "runHandler" and action["input"]["handler"] == "reboot.sh":
                return "reboot"
        except Exception:  # noqa: S110 - steps of another shape are not supported either
            pass
        raise JobRejected("job document: steps: only the handler reboot.sh is supported")
    if not is_name(operation):
        raise JobRejected("job document: operation must be 1 to 64 letters, digits, - or _")
    return operation  # type: ignore[return-value]
