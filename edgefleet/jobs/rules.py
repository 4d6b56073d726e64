# SPDX-License-Identifier: Apache-2.0
"""The rules of job executions: what may follow what, when it times out, when a job aborts or retries. No I/O.

Source: aws-iot-protocol.md sections 3.5-3.9, 4.3-4.5, Appendix D.1, D.3, D.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

QUEUED = "QUEUED"
IN_PROGRESS = "IN_PROGRESS"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
TIMED_OUT = "TIMED_OUT"
REJECTED = "REJECTED"
REMOVED = "REMOVED"
CANCELED = "CANCELED"

STATUSES = (QUEUED, IN_PROGRESS, SUCCEEDED, FAILED, TIMED_OUT, REJECTED, REMOVED, CANCELED)
PENDING = frozenset((QUEUED, IN_PROGRESS))
TERMINAL = frozenset(STATUSES) - PENDING
SETTABLE = frozenset((IN_PROGRESS, SUCCEEDED, FAILED, REJECTED))  # by a device (section 0, rule 9)

DEFAULT_RATE = 1000  # things a minute (section 4.3)


class JobError(Exception):
    """A request that the rules refuse. `code`: of section 3.10; `state`: `executionState` where the error has one."""

    def __init__(self, code: str, message: str, state: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.state = state


@dataclass(frozen=True, slots=True)
class Execution:
    """One attempt of one thing at one job. Times and deadlines are whole epoch seconds."""

    job_id: str
    thing: str
    number: int
    status: str
    version: int
    queued_at: int
    updated_at: int
    sequence: int = 0  # order of creation, breaks ties of queued_at
    started_at: int | None = None
    details: Mapping[str, str] | None = None
    progress_deadline: int | None = None
    step_deadline: int | None = None
    retry_attempt: int = 0
    force_canceled: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """The identity that notifications compare (D.1)."""
        return self.job_id, self.number

    @property
    def deadline(self) -> int | None:
        """When it times out: whichever timer fires first (section 3.8); None if it never does."""
        if self.status != IN_PROGRESS:
            return None
        due = [at for at in (self.progress_deadline, self.step_deadline) if at is not None]
        return min(due) if due else None

    @property
    def state(self) -> dict[str, Any]:
        """JobExecutionState (section 3.3)."""
        state: dict[str, Any] = {"status": self.status}
        if self.details is not None:
            state["statusDetails"] = dict(self.details)
        state["versionNumber"] = self.version
        return state


@dataclass(frozen=True, slots=True)
class Update:
    """A checked UpdateJobExecution. `step_minutes` -1 cancels the step timer; `details` None changes nothing."""

    status: str
    details: Mapping[str, str] | None = None
    expected_version: int | None = None
    number: int | None = None
    step_minutes: int | None = None
    include_state: bool = False
    include_document: bool = False


def queue_order(executions: Iterable[Execution]) -> list[Execution]:
    """IN_PROGRESS first, then by time queued, then by creation (D.1)."""
    return sorted(executions, key=lambda e: (e.status != IN_PROGRESS, e.queued_at, e.sequence))


def start(execution: Execution, now: int, details: Mapping[str, str] | None, step_minutes: int | None,
          timeout_minutes: int | None) -> Execution:  # fmt: skip
    """StartNextPendingJobExecution on the chosen execution.

    One already IN_PROGRESS stays as it is, except that a given step timer is applied (section 3.5).
    """
    if execution.status == IN_PROGRESS:
        return execution if step_minutes is None else _with_step(execution, now, step_minutes)
    started = _in_progress(execution, now, timeout_minutes)
    started = replace(started, version=execution.version + 1, updated_at=now)
    if details is not None:
        started = replace(started, details=details)
    return _with_step(started, now, step_minutes)


def report(execution: Execution, update: Update, now: int, timeout_minutes: int | None) -> Execution:
    """UpdateJobExecution by a device; `update.status` is one of SETTABLE.

    Raises JobError VersionMismatch or InvalidStateTransition, in that order, both with `executionState`.
    """
    if update.expected_version is not None and update.expected_version != execution.version:
        raise JobError(
            "VersionMismatch",
            f"Expected version {update.expected_version} but found version {execution.version}",
            execution.state,
        )
    if execution.status in TERMINAL:
        raise JobError(
            "InvalidStateTransition",
            f"Job execution has already finished with status {execution.status}; "
            f"it cannot be changed to be {update.status}",
            execution.state,
        )
    if update.status == IN_PROGRESS:
        changed = execution if execution.status == IN_PROGRESS else _in_progress(execution, now, timeout_minutes)
        changed = _with_step(changed, now, update.step_minutes)
    else:
        changed = _ended(execution, update.status)
        if update.status != REJECTED and changed.started_at is None:
            changed = replace(changed, started_at=now)
    if update.details is not None:
        changed = replace(changed, details=update.details)
    return replace(changed, version=execution.version + 1, updated_at=now)


def cancel(execution: Execution, now: int, force: bool, details: Mapping[str, str] | None = None) -> Execution:
    """To CANCELED. Raises JobError InvalidStateTransition: finished, or IN_PROGRESS without `force` (section 4.8)."""
    if execution.status in TERMINAL or (execution.status == IN_PROGRESS and not force):
        raise JobError(
            "InvalidStateTransition",
            f"Job execution in status {execution.status} cannot be canceled"
            + ("" if execution.status in TERMINAL else " without force"),
            execution.state,
        )
    changed = replace(_ended(execution, CANCELED), version=execution.version + 1, updated_at=now, force_canceled=force)
    return changed if details is None else replace(changed, details=details)


def time_out(execution: Execution, now: int) -> Execution:
    """To TIMED_OUT if a timer has run out at `now`, else unchanged."""
    if execution.deadline is None or execution.deadline > now:
        return execution
    return replace(_ended(execution, TIMED_OUT), version=execution.version + 1, updated_at=now)


def remove(execution: Execution, now: int) -> Execution:
    """To REMOVED, if pending. Does not count as a version (section 3.3)."""
    return execution if execution.status in TERMINAL else replace(_ended(execution, REMOVED), updated_at=now)


def _in_progress(execution: Execution, now: int, timeout_minutes: int | None) -> Execution:
    return replace(
        execution,
        status=IN_PROGRESS,
        started_at=now if execution.started_at is None else execution.started_at,
        progress_deadline=None if timeout_minutes is None else now + 60 * timeout_minutes,
    )


def _with_step(execution: Execution, now: int, minutes: int | None) -> Execution:
    if minutes is None:
        return execution
    return replace(execution, step_deadline=None if minutes == -1 else now + 60 * minutes)


def _ended(execution: Execution, status: str) -> Execution:
    return replace(execution, status=status, progress_deadline=None, step_deadline=None)


def failure_types(criterion: str) -> tuple[str, ...]:
    """The statuses an abort or retry criterion counts (sections 4.4, 4.5)."""
    return (FAILED, REJECTED, TIMED_OUT) if criterion == "ALL" else (criterion,)


def aborting(config: Mapping[str, Any] | None, counts: Mapping[str, int]) -> str | None:
    """The comment with which the job must be aborted now, or None (D.4). `counts`: executions by status."""
    if not config:
        return None
    completed = sum(counts.get(status, 0) for status in TERMINAL)
    for criterion in config["criteriaList"]:
        failed = sum(counts.get(status, 0) for status in failure_types(criterion["failureType"]))
        threshold = Fraction(str(criterion["thresholdPercentage"]))  # exact: 33.33 % is not a binary fraction
        if completed >= criterion["minNumberOfExecutedThings"] and 100 * failed >= threshold * completed:
            return (
                f"Aborted: {failed} of {completed} executed things are {criterion['failureType']}, "
                f"threshold {criterion['thresholdPercentage']}%"
            )
    return None


def retrying(config: Mapping[str, Any] | None, status: str, attempts: Sequence[str]) -> bool:
    """Whether a thing that just reached `status` gets another execution (section 4.5).

    attempts: the final statuses of all its executions of the job, the one just ended included. REJECTED is never
    retried, also not by ALL (section 3.9).
    """
    if not config or status not in (FAILED, TIMED_OUT):
        return False
    for criterion in config["criteriaList"]:
        types = failure_types(criterion["failureType"])
        if status in types:
            failures = sum(1 for one in attempts if one in types and one != REJECTED)
            return bool(failures <= criterion["numberOfRetries"])
    return False


def rollout_rate(config: Mapping[str, Any] | None, notified: int, succeeded: int) -> int:
    """Things to notify a minute, now (D.3)."""
    config = config or {}
    maximum = int(config.get("maximumPerMinute", DEFAULT_RATE))
    exponential = config.get("exponentialRate")
    if exponential is None:
        return maximum
    criteria = exponential["rateIncreaseCriteria"]
    if "numberOfSucceededThings" in criteria:
        steps = succeeded // criteria["numberOfSucceededThings"]
    else:
        steps = notified // criteria["numberOfNotifiedThings"]
    rate = Fraction(exponential["baseRatePerMinute"])
    factor = Fraction(str(exponential["incrementFactor"]))
    for _ in range(steps):  # ends early: the factor is at least 1.1 and the maximum at most 1000
        if rate >= maximum:
            break
        rate *= factor
    return min(maximum, int(rate))
