# SPDX-License-Identifier: Apache-2.0
"""The device plane of jobs over HTTP: operations of `iot-jobs-data` (aws-iot-protocol.md sections 3.1, 3.10).

The answers differ from MQTT in two things: `thingName` is there, and `jobDocument` is a JSON string.
"""

from __future__ import annotations

from typing import Any

from edgefleet.errors import ApiError, invalid
from edgefleet.jobs import device
from edgefleet.jobs.documents import Presign
from edgefleet.jobs.records import Context
from edgefleet.jobs.rules import JobError
from edgefleet.messages import compact
from edgefleet.store import Tx

_STATUS = {
    "ResourceNotFound": ("ResourceNotFoundException", 404),
    "InvalidStateTransition": ("InvalidStateTransitionException", 409),
    "TerminalStateReached": ("TerminalStateException", 410),
}


class JobsDataOperations:
    """presign: as in JobOperations. The callers are notified over MQTT like anyone else, not answered there."""

    def __init__(self, presign: Presign | None = None) -> None:
        self._presign = presign

    def get_pending_job_executions(self, tx: Tx, *, thingName: str) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        device.get_pending(tx, self._context(), thingName, answer.update)
        return answer

    def start_next_pending_job_execution(self, tx: Tx, *, thingName: str, statusDetails: dict[str, str] | None = None,
                                         stepTimeoutInMinutes: int | None = None) -> dict[str, Any]:  # fmt: skip
        members = {"statusDetails": statusDetails, "stepTimeoutInMinutes": stepTimeoutInMinutes}
        return self._call(device.start_next, tx, thingName, members)

    def describe_job_execution(self, tx: Tx, *, jobId: str, thingName: str, includeJobDocument: bool | None = None,
                               executionNumber: int | None = None) -> dict[str, Any]:  # fmt: skip
        members = {"includeJobDocument": includeJobDocument, "executionNumber": executionNumber}
        return self._call(device.describe, tx, thingName, members, jobId)

    def update_job_execution(self, tx: Tx, *, jobId: str, thingName: str, status: str,
                             statusDetails: dict[str, str] | None = None, stepTimeoutInMinutes: int | None = None,
                             expectedVersion: int | None = None, includeJobExecutionState: bool | None = None,
                             includeJobDocument: bool | None = None,
                             executionNumber: int | None = None) -> dict[str, Any]:  # fmt: skip
        members = {
            "status": status,
            "statusDetails": statusDetails,
            "stepTimeoutInMinutes": stepTimeoutInMinutes,
            "expectedVersion": expectedVersion,
            "includeJobExecutionState": includeJobExecutionState,
            "includeJobDocument": includeJobDocument,
            "executionNumber": executionNumber,
        }
        return self._call(device.update, tx, thingName, members, jobId)

    def _call(self, operation: Any, tx: Tx, thing: str, members: dict[str, Any], *where: str) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        try:
            operation(tx, self._context(), thing, *where, members, answer.update)
        except JobError as error:
            code, status = _STATUS.get(error.code, ("", 0))
            raise (ApiError(code, error.message, status) if code else invalid(error.message)) from None
        if "jobDocument" in answer:
            answer["jobDocument"] = compact(answer["jobDocument"]).decode()
        execution = answer.get("execution")
        if execution is not None:
            execution["thingName"] = thing
            if "jobDocument" in execution:
                execution["jobDocument"] = compact(execution["jobDocument"]).decode()
        return answer

    def _context(self) -> Context:
        return Context.current(self._presign)
