# SPDX-License-Identifier: Apache-2.0
"""The control plane of jobs: operations of `iot` (aws-iot-protocol.md section 4)."""

from __future__ import annotations

import json
import re
from typing import Any

from edgefleet import names
from edgefleet.artifacts.objects import Objects
from edgefleet.errors import ApiError, invalid, not_found, version_conflict
from edgefleet.jobs import creation, documents, lifecycle, listing, records, requests, rules, settings
from edgefleet.jobs.data_operations import JobsDataOperations
from edgefleet.jobs.documents import Presign
from edgefleet.jobs.records import Context
from edgefleet.jobs.rules import Execution, JobError
from edgefleet.store import Tx

__all__ = ["JobOperations", "JobsDataOperations"]

_REASON = re.compile(r"[A-Z0-9_]{1,128}")
_COUNTS = {
    "numberOfCanceledThings": rules.CANCELED,
    "numberOfSucceededThings": rules.SUCCEEDED,
    "numberOfFailedThings": rules.FAILED,
    "numberOfRejectedThings": rules.REJECTED,
    "numberOfQueuedThings": rules.QUEUED,
    "numberOfInProgressThings": rules.IN_PROGRESS,
    "numberOfRemovedThings": rules.REMOVED,
    "numberOfTimedOutThings": rules.TIMED_OUT,
}


class JobOperations:
    """objects: where `documentSource` is read. presign: makes the URLs of placeholders; without it they stay as is."""

    def __init__(self, objects: Objects, presign: Presign | None = None) -> None:
        self._objects = objects
        self._presign = presign

    def create_job(self, tx: Tx, *, jobId: str, targets: list[str], document: str | None = None,
                   documentSource: str | None = None, description: str | None = None,
                   targetSelection: str = "SNAPSHOT", presignedUrlConfig: dict[str, Any] | None = None,
                   timeoutConfig: dict[str, Any] | None = None, abortConfig: dict[str, Any] | None = None,
                   jobExecutionsRolloutConfig: dict[str, Any] | None = None,
                   jobExecutionsRetryConfig: dict[str, Any] | None = None) -> dict[str, Any]:  # fmt: skip
        if (document is None) == (documentSource is None):
            raise invalid("Exactly one of document and documentSource is required")
        if documentSource is not None:
            document = documents.fetched(self._objects.get, documentSource)
        creation.create(
            tx,
            self._context(),
            jobId,
            targets=targets,
            document=document or "",
            document_source=documentSource,
            target_selection=targetSelection,
            description=description,
            presigned_config=presignedUrlConfig,
            timeout_config=timeoutConfig,
            abort_config=abortConfig,
            rollout_config=jobExecutionsRolloutConfig,
            retry_config=jobExecutionsRetryConfig,
        )
        return _named(jobId, description)

    def describe_job(self, tx: Tx, *, jobId: str, beforeSubstitution: bool = False) -> dict[str, Any]:
        row = records.job(tx, jobId)
        counts = records.counts(tx, jobId)
        job: dict[str, Any] = {
            "jobArn": names.arn(f"job/{jobId}"),
            "jobId": jobId,
            "targetSelection": row["target_selection"],
            "status": row["status"],
            "targets": json.loads(row["targets"]),
            "createdAt": row["created_at"],
            "lastUpdatedAt": row["updated_at"],
            "jobProcessDetails": {member: counts.get(status, 0) for member, status in _COUNTS.items()},
            "presignedUrlConfig": records.config(row, "presigned_config") or {},
            "jobExecutionsRolloutConfig": records.config(row, "rollout_config") or {},
            "timeoutConfig": records.config(row, "timeout_config") or {},
            "schedulingConfig": {},
            "isConcurrent": tx.one("SELECT 1 FROM job_waiting WHERE job_id = ?", (jobId,)) is not None,
        }
        for member, column in (("abortConfig", "abort_config"), ("jobExecutionsRetryConfig", "retry_config")):
            if row[column] is not None:
                job[member] = records.config(row, column)
        for member, column in (("description", "description"), ("comment", "comment"),
                               ("reasonCode", "reason_code"), ("completedAt", "completed_at")):  # fmt: skip
            if row[column] is not None:
                job[member] = row[column]
        if row["status"] == rules.CANCELED:
            job["forceCanceled"] = bool(row["force_canceled"])
        answer: dict[str, Any] = {"job": job}
        if row["document_source"] is not None:
            answer["documentSource"] = row["document_source"]
        return answer

    def list_jobs(self, tx: Tx, *, status: str | None = None, targetSelection: str | None = None,
                  thingGroupName: str | None = None, maxResults: int | None = None,
                  nextToken: str | None = None) -> dict[str, Any]:  # fmt: skip
        return listing.jobs(tx, status, targetSelection, thingGroupName, maxResults, nextToken)

    def cancel_job(self, tx: Tx, *, jobId: str, reasonCode: str | None = None, comment: str | None = None,
                   force: bool = False) -> dict[str, Any]:  # fmt: skip
        row = records.job(tx, jobId)
        if reasonCode is not None and not _REASON.fullmatch(reasonCode):
            raise invalid(f"reasonCode must match {_REASON.pattern}")
        settings.text(comment, "comment")
        lifecycle.cancel(tx, self._context(), jobId, force=force, reason_code=reasonCode, comment=comment)
        return _named(jobId, row["description"])

    def delete_job(self, tx: Tx, *, jobId: str, force: bool = False) -> dict[str, Any]:
        lifecycle.delete(tx, self._context(), jobId, force=force)
        return {}

    def list_job_executions_for_job(self, tx: Tx, *, jobId: str, status: str | None = None,
                                    maxResults: int | None = None,
                                    nextToken: str | None = None) -> dict[str, Any]:  # fmt: skip
        return listing.of_job(tx, jobId, status, maxResults, nextToken)

    def list_job_executions_for_thing(self, tx: Tx, *, thingName: str, status: str | None = None,
                                      maxResults: int | None = None, nextToken: str | None = None,
                                      jobId: str | None = None) -> dict[str, Any]:  # fmt: skip
        return listing.of_thing(tx, thingName, status, jobId, maxResults, nextToken)

    def describe_job_execution(self, tx: Tx, *, jobId: str, thingName: str,
                               executionNumber: int | None = None) -> dict[str, Any]:  # fmt: skip
        execution = _existing(tx, jobId, thingName, executionNumber)
        shown: dict[str, Any] = {
            "jobId": jobId,
            "status": execution.status,
            "forceCanceled": execution.force_canceled,
            "statusDetails": {"detailsMap": dict(execution.details or {})},
            "thingArn": names.arn(f"thing/{thingName}"),
            "queuedAt": execution.queued_at,
            "lastUpdatedAt": execution.updated_at,
            "executionNumber": execution.number,
            "versionNumber": execution.version,
        }
        if execution.started_at is not None:
            shown["startedAt"] = execution.started_at
        if execution.deadline is not None:
            shown["approximateSecondsBeforeTimedOut"] = max(0, execution.deadline - self._context().now)
        return {"execution": shown}

    def cancel_job_execution(self, tx: Tx, *, jobId: str, thingName: str, force: bool = False,
                             expectedVersion: int | None = None,
                             statusDetails: dict[str, str] | None = None) -> dict[str, Any]:  # fmt: skip
        execution = _existing(tx, jobId, thingName, None)
        if expectedVersion is not None and expectedVersion != execution.version:
            raise version_conflict(f"Expected version {expectedVersion} but found version {execution.version}")
        try:
            details = requests.status_details({"statusDetails": statusDetails})
            lifecycle.cancel_execution(tx, self._context(), execution, force, details)
        except JobError as error:
            raise _api_error(error) from None
        return {}

    def delete_job_execution(self, tx: Tx, *, jobId: str, thingName: str, executionNumber: int,
                             force: bool = False) -> dict[str, Any]:  # fmt: skip
        execution = _existing(tx, jobId, thingName, executionNumber)
        try:
            lifecycle.delete_execution(tx, self._context(), execution, force)
        except JobError as error:
            raise _api_error(error) from None
        return {}

    def get_job_document(self, tx: Tx, *, jobId: str, beforeSubstitution: bool = False) -> dict[str, Any]:
        return {"document": records.job(tx, jobId)["document"]}

    def _context(self) -> Context:
        return Context.current(self._presign)


def _named(job_id: str, description: str | None) -> dict[str, Any]:
    answer = {"jobArn": names.arn(f"job/{job_id}"), "jobId": job_id}
    if description is not None:
        answer["description"] = description
    return answer


def _existing(tx: Tx, job_id: str, thing: str, number: int | None) -> Execution:
    execution = records.find(tx, job_id, thing, number)
    if execution is None:
        raise not_found(f"Job {job_id} not found for {thing}")
    return execution


def _api_error(error: JobError) -> ApiError:
    if error.code == "InvalidStateTransition":
        return ApiError("InvalidStateTransitionException", error.message, 409)
    return invalid(error.message)
