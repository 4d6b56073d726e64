# SPDX-License-Identifier: Apache-2.0
"""Checking what a device asks of its job executions: shapes and limits, in the order the service checks them.

Every function raises JobError `InvalidRequest`, or what else its docstring says.
Source: aws-iot-protocol.md sections 3.5-3.8, 1.1, 17.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from edgefleet.jobs.rules import SETTABLE, STATUSES, JobError, Update

MAX_DETAILS = 10  # pairs
MAX_DETAIL_KEY = 128  # characters
MAX_DETAIL_VALUE = 1024  # characters
MAX_MINUTES = 10080  # a week: step and in-progress time-outs
_DETAIL_KEY = re.compile(r"[a-zA-Z0-9:_-]+")
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def update(body: Mapping[str, Any]) -> Update:
    """A checked UpdateJobExecution.

    Raises JobError InvalidRequest, or InvalidStateTransition (without `executionState`) for a status that only the
    service sets.
    """
    details = status_details(body)
    step_minutes = _step(body, cancellable=True)
    expected_version = _integer(body, "expectedVersion")
    number = _integer(body, "executionNumber")
    include_state = _flag(body, "includeJobExecutionState", False)
    include_document = _flag(body, "includeJobDocument", False)
    status = body.get("status")
    if status is None:
        raise _bad("status is required")
    if status not in STATUSES:
        raise _bad(f"status must be one of {', '.join(STATUSES)}")
    if status not in SETTABLE:
        raise JobError("InvalidStateTransition", f"Job execution status cannot be changed to be {status}")
    return Update(status, details, expected_version, number, step_minutes, include_state, include_document)


def start_next(body: Mapping[str, Any]) -> tuple[dict[str, str] | None, int | None]:
    """(statusDetails, stepTimeoutInMinutes) of a StartNextPendingJobExecution."""
    return status_details(body), _step(body, cancellable=False)


def describe(body: Mapping[str, Any]) -> tuple[int | None, bool]:
    """(executionNumber, includeJobDocument) of a DescribeJobExecution."""
    return _integer(body, "executionNumber"), _flag(body, "includeJobDocument", True)


def client_token(body: Mapping[str, Any]) -> str | None:
    """The token to echo, unchanged. Anything but a string is refused: the clients compare strings (section 0.2)."""
    token = body.get("clientToken")
    if token is not None and not isinstance(token, str):
        raise _bad("clientToken must be a string")
    return token


def status_details(body: Mapping[str, Any]) -> dict[str, str] | None:
    """The checked `statusDetails`; None if absent (leave them as they are)."""
    details = body.get("statusDetails")
    if details is None:
        return None
    if not isinstance(details, dict):
        raise _bad("statusDetails must be an object")
    if len(details) > MAX_DETAILS:
        raise _bad(f"statusDetails must have at most {MAX_DETAILS} pairs, not {len(details)}")
    for key, value in details.items():
        if not 1 <= len(key) <= MAX_DETAIL_KEY or not _DETAIL_KEY.fullmatch(key):
            raise _bad(f"a statusDetails key must match {_DETAIL_KEY.pattern} and have 1-{MAX_DETAIL_KEY} characters")
        if not isinstance(value, str):
            raise _bad(f"statusDetails value of '{key}' must be a string")
        if not 1 <= len(value) <= MAX_DETAIL_VALUE:
            raise _bad(f"statusDetails value of '{key}' must have 1-{MAX_DETAIL_VALUE} characters, not {len(value)}")
        if any(unicodedata.category(character)[0] == "C" for character in value):
            raise _bad(f"statusDetails value of '{key}' must not contain control characters")
    return dict(details)


def _step(body: Mapping[str, Any], cancellable: bool) -> int | None:
    minutes = _integer(body, "stepTimeoutInMinutes")
    if minutes is None or 1 <= minutes <= MAX_MINUTES or (cancellable and minutes == -1):
        return minutes
    raise _bad(f"stepTimeoutInMinutes must be between 1 and {MAX_MINUTES}" + (" or -1" if cancellable else ""))


def _integer(body: Mapping[str, Any], name: str) -> int | None:
    """A number, or a numeric string: the C Jobs library always quotes expectedVersion (section 0, rule 7)."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    raise _bad(f"{name} must be an integer")


def _flag(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _bad(f"{name} must be true or false")
    return value


def _bad(message: str) -> JobError:
    return JobError("InvalidRequest", message)
