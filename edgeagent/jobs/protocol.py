# SPDX-License-Identifier: Apache-2.0
"""Rules of the Jobs data plane without I/O: request bodies, strict reading of replies, clean statusDetails.

Source: aws-iot-protocol.md sections 1.1, 3.3 to 3.12. MicroPython's JSON decoder is lax (micropython.md A1.1), so
every member is checked here before anything else looks at it.
"""

from edgeagent.compat import Any
from edgeagent.errors import ProtocolError

# Refusals after which an execution is no longer ours: finished by somebody else, or gone (section 3.10).
OVER = ("InvalidStateTransition", "TerminalStateReached", "ResourceNotFound")
# "Retry only RequestThrottled and InternalError" (section 3.10). VersionMismatch: another writer came between, for a
# service that compares versions unasked; what is sent expects none, so the same again is the recovery.
PASSING = ("RequestThrottled", "InternalError", "VersionMismatch")

_NAME_CHARS = "abcdefghijklmnopqrstuvwxyz0123456789_-"


def is_name(text: object) -> bool:
    """True for text of 1 to 64 letters, digits, `_` and `-` (section 1.1: jobId and the like)."""
    if not isinstance(text, str) or not 0 < len(text) <= 64:
        return False
    for char in text:  # noqa: SIM110 - a generator would be a function more
        if char.lower() not in _NAME_CHARS:
            return False
    return True


def execution(reply: "dict[str, Any]") -> "dict[str, Any] | None":
    """The execution in a start-next or describe answer while it is in progress, else None.

    reply: the decoded JSON object. `jobId`, `executionNumber` and `status` of what is returned are as they should be,
    `jobDocument` is unchecked. Raises ProtocolError naming the member. Source: section 3.3.
    """
    data = reply.get("execution")
    if not data:
        return None
    wrong = ""
    if not isinstance(data, dict) or not is_name(data.get("jobId")):
        wrong = "jobId"
    elif type(data.get("executionNumber")) is not int:  # a bool is an int to isinstance
        wrong = "executionNumber"
    elif not isinstance(data.get("status"), str):
        wrong = "status"
    if wrong:
        raise ProtocolError("execution: wrong " + wrong)
    return data if data["status"] == "IN_PROGRESS" else None


def update(
    status: str, details: "dict[str, Any] | None", number: int, minutes: "int | None" = None
) -> "dict[str, Any]":
    """Body of a `{jobId}/update` request (section 3.7). minutes: of the step timer (section 3.8), None to leave it.

    The execution number is always sent, so that a late report can never hit the retry of the same job. The expected
    version never is: after a lost reply our own count would be behind (section 3.12, Greengrass lite).
    """
    body: "dict[str, Any]" = {"status": status, "executionNumber": number}
    details = clean_details(details or {})
    if details:
        body["statusDetails"] = details
    if minutes:
        body["stepTimeoutInMinutes"] = minutes
    return body


def clean_details(details: "dict[str, Any]") -> "dict[str, str]":
    """statusDetails as the service accepts them: at most 10 pairs, text values without control characters.

    `reason` is one of the ten if it is there. Numbers and booleans become text; empty values, None and the pairs beyond
    the tenth are left out; too long values keep their start. Characters that a key may not have become `_`.
    Source: section 1.1.
    """
    out: "dict[str, str]" = {}
    for key in ["reason"] + list(details):
        value = details.get(key)
        if value is None or value == "" or len(out) > 9:
            continue
        text = str(value)[:1024]
        if isinstance(value, bool):
            text = text.lower()
        for char in text:
            code = ord(char)
            # [^\p{C}]: controls, surrogates and private use; of the format characters those that occur in real text.
            if code < 32 or 126 < code < 160 or 0x200A < code < 0x202F or 0xD7FF < code < 0xF900:
                text = text.replace(char, " ")
        name = str(key)[:128] or "_"
        for char in name:
            if char != ":" and char.lower() not in _NAME_CHARS:
                name = name.replace(char, "_")
        out[name] = text
    return out
