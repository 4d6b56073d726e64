# SPDX-License-Identifier: Apache-2.0
"""Rules of the Jobs data plane without I/O: request bodies, strict reading of replies, clean statusDetails.

Source: aws-iot-protocol.md sections 1.1, 3.3 to 3.12. MicroPython's JSON decoder is lax (micropython.md A1.1), so
every member is checked here before anything else looks at it.
"""

from edgeagent.compat import Any
from edgeagent.errors import ProtocolError
from edgeagent.limits import LIMITS

QUEUED = "QUEUED"
IN_PROGRESS = "IN_PROGRESS"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
REJECTED = "REJECTED"

# Refusals after which an execution is no longer ours: finished by somebody else, or gone (section 3.10).
OVER = ("InvalidStateTransition", "TerminalStateReached", "ResourceNotFound")
# "Retry only RequestThrottled and InternalError" (section 3.10).
PASSING = ("RequestThrottled", "InternalError")

_NAME_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
_KEY_CHARS = _NAME_CHARS + ":"


class Execution:
    """One job execution as the service described it. `document` is unchecked, None if it was not asked for."""

    def __init__(self, data: "dict[str, Any]") -> None:
        """data: a JobExecutionData that `execution` has checked."""
        self.job_id: str = data["jobId"]
        self.number: int = data["executionNumber"]
        self.version: int = data["versionNumber"]
        self.status: str = data["status"]
        self.document: object = data.get("jobDocument")


def is_name(text: object, longest: int, chars: str = _NAME_CHARS) -> bool:
    """True for text of 1 to `longest` characters, all of them in `chars` (section 1.1: jobId and the like)."""
    if not isinstance(text, str) or not 0 < len(text) <= longest:
        return False
    return all(char in chars for char in text)


def execution(reply: "dict[str, Any]") -> "Execution | None":
    """Read the `execution` of a start-next, describe or notify-next message; None if there is none.

    reply: the decoded JSON object. Raises ProtocolError naming the member. Source: section 3.3.
    """
    data = reply.get("execution")
    if not data:
        return None
    if not isinstance(data, dict):
        raise ProtocolError("execution is not an object")
    wrong = "" if is_name(data.get("jobId"), 64) else "jobId"
    for name, kind in (("status", str), ("executionNumber", int), ("versionNumber", int)):
        if type(data.get(name)) is not kind:  # a bool is an int to isinstance
            wrong = name
    if wrong:
        raise ProtocolError("execution: wrong " + wrong)
    return Execution(data)


def update(status: str, details: "dict[str, Any] | None", number: int) -> "dict[str, Any]":
    """Body of a `{jobId}/update` request (section 3.7).

    The execution number is always sent, so that a late report can never hit the retry of the same job. The expected
    version never is: after a lost reply our own count would be behind (section 3.12, Greengrass lite).
    """
    body = {"status": status, "executionNumber": number}
    if details:
        body["statusDetails"] = clean_details(details)
    return body


def clean_details(details: "dict[str, Any]") -> "dict[str, str]":
    """statusDetails as the service accepts them: at most 10 pairs, text values without control characters.

    Numbers and booleans become text; empty values, None and the pairs beyond the tenth are left out; too long values
    keep their start. Characters that a key may not have become `_`. Source: section 1.1.
    """
    out: "dict[str, str]" = {}
    for key in details:
        value = details[key]
        if value is None or value == "" or len(out) == LIMITS.STATUS_DETAIL_PAIRS:
            continue
        value = str(value).lower() if isinstance(value, bool) else str(value)
        name = "".join([char if char in _KEY_CHARS else "_" for char in str(key)[:128]])
        out[name] = "".join([_clean(char) for char in value[: LIMITS.STATUS_DETAIL_CHARS]])
    return out


def _clean(char: str) -> str:
    code = ord(char)
    # [^\p{C}]: controls, surrogates and private use; of the format characters those that occur in real text.
    if code < 32 or 127 <= code < 160 or 0x200B <= code <= 0x202E or 0xD800 <= code <= 0xF8FF or code > 0xE0000:
        return " "
    return char
