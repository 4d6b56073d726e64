# SPDX-License-Identifier: Apache-2.0
"""Job documents: which operation one asks for, and whether now. Every refusal names the member. Loaded for each job.

Forms that are understood:
    {"operation": "NAME", ...arguments}              ours
    {"version": "1.0", "steps": [{"action": ...}]}   the AWS device client's, which the AWS managed templates make
    {"operation": "NAME.sh", "args": [...]}          the device client's older form: a step without a version
    {"afr_ota": {...}}                               an AWS OTA update
Steps are operation `steps` on Linux; a board has no programs to run, so it does only AWS-Reboot, as `reboot`.
Members of all forms: "condition" (condition.py) and "stepTimeoutInMinutes" (JobContext.minutes).
Source: aws-iot-protocol.md sections 3.8, 5.1, 5.3 and 10.4.
"""

from edgeagent.compat import MICROPYTHON, Any, const
from edgeagent.errors import JobRejected
from edgeagent.jobs.protocol import is_name
from edgeagent.jobs.registry import unload

_DOCUMENT_BYTES = const(8192)  # such a document already needs 21 KB of heap as objects


async def prepare(job: "Any") -> str:
    """The operation of a JobContext whose condition is met and whose step timer, if asked for, is running.

    A condition is looked at before the job begins, not when it goes on after a reset: an update may change the answer.
    Raises JobRejected, JobSkipped.
    """
    document = job.document
    operation = parse(document)
    if "condition" in document and not job.resumed:
        from edgeagent.jobs.condition import check

        check(document["condition"], job.agent.attributes.full())
        del check
        unload(["edgeagent.jobs.condition"])
    minutes = document.get("stepTimeoutInMinutes")
    if minutes is not None:
        if type(minutes) is not int or not 0 < minutes < 10081:  # a bool is an int to isinstance
            raise JobRejected("stepTimeoutInMinutes must be 1 to 10080")
        job.minutes = minutes
        await job.progress()
    return operation


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
    """The operation that a job document asks for. Raises JobRejected naming the member, or the cap; MemoryError.

    document: a text if it could not be received, "MemoryError" for lack of memory.
    """
    if document == "MemoryError":
        raise MemoryError
    try:
        if not isinstance(document, dict) or size(document) > _DOCUMENT_BYTES:
            raise JobRejected("job document is no object of at most %d bytes" % _DOCUMENT_BYTES)
    except (RuntimeError, ValueError):  # recursion is short on boards; half a surrogate pair is no text
        raise JobRejected("job document is nested too deeply or no text") from None
    operation = document.get("operation")
    if "steps" in document or (isinstance(operation, str) and operation[-3:] == ".sh"):
        if not MICROPYTHON:
            return "steps"
        try:
            (step,) = document["steps"]
            action = step["action"]
            if action["type"] == "runHandler" and action["input"]["handler"] == "reboot.sh":
                return "reboot"
        except Exception:  # noqa: S110 - steps of another shape are not supported either
            pass
        raise JobRejected("job document: steps: only the handler reboot.sh is supported")
    if "afr_ota" in document:
        return "afr_ota"
    if not is_name(operation):
        raise JobRejected("job document: operation must be 1 to 64 letters, digits, - or _")
    return operation  # type: ignore[return-value]
