# SPDX-License-Identifier: Apache-2.0
"""CreateJob: targets, document and configurations checked, then stored whole (aws-iot-protocol.md section 4.1)."""

from __future__ import annotations

import json
from typing import Any

from edgefleet import names
from edgefleet.errors import already_exists, invalid, limit_exceeded, not_found, not_implemented
from edgefleet.jobs import documents, lifecycle, records, rollout, settings
from edgefleet.jobs.records import Context
from edgefleet.registry import groups, things
from edgefleet.store import Tx

MAX_TARGETS = 100
MAX_CONCURRENT = 500  # jobs IN_PROGRESS


def create(tx: Tx, context: Context, job_id: str, *, targets: list[str], document: str,
           document_source: str | None, target_selection: str, description: str | None,
           presigned_config: dict[str, Any] | None, timeout_config: dict[str, Any] | None,
           abort_config: dict[str, Any] | None, rollout_config: dict[str, Any] | None,
           retry_config: dict[str, Any] | None) -> None:  # fmt: skip
    """Store a job and release its first executions.

    Raises InvalidRequestException, ResourceNotFoundException (a target), ResourceAlreadyExistsException,
    LimitExceededException, or NotImplementedException for CONTINUOUS.
    """
    names.check("jobId", job_id)
    if target_selection == "CONTINUOUS":
        raise not_implemented("targetSelection CONTINUOUS")
    if target_selection != "SNAPSHOT":
        raise invalid("targetSelection must be SNAPSHOT or CONTINUOUS")
    settings.text(description, "description")
    settings.presigned(presigned_config)
    settings.timeout(timeout_config)
    settings.abort(abort_config)
    settings.rollout(rollout_config)
    settings.retry(retry_config)
    documents.check(document)
    if documents.has_placeholder(document) and not (presigned_config or {}).get("roleArn"):
        raise invalid("presignedUrlConfig.roleArn is required: the job document asks for a presigned URL")
    if tx.one("SELECT 1 FROM jobs WHERE job_id = ?", (job_id,)) is not None:
        raise already_exists(f"Job {job_id} already exists.", resourceId=job_id, resourceArn=names.arn(f"job/{job_id}"))
    members = resolve(tx, targets)
    if tx.value("SELECT count(*) FROM jobs WHERE status = 'IN_PROGRESS'") >= MAX_CONCURRENT:
        raise limit_exceeded(f"There are already {MAX_CONCURRENT} jobs in progress")

    def stored(value: Any) -> str | None:
        return None if value is None else json.dumps(value)

    tx.execute(
        "INSERT INTO jobs (job_id, status, target_selection, targets, document, document_source, description,"
        " presigned_config, timeout_config, abort_config, rollout_config, retry_config, created_at, updated_at)"
        " VALUES (?, 'IN_PROGRESS', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            job_id,
            target_selection,
            json.dumps(targets),
            document,
            document_source,
            description,
            stored(presigned_config),
            stored(timeout_config),
            stored(abort_config),
            stored(rollout_config),
            stored(retry_config),
            context.now,
            context.now,
        ),
    )
    tx.executemany(
        "INSERT INTO job_waiting (job_id, position, thing_name) VALUES (?, ?, ?)",
        [(job_id, position, thing) for position, thing in enumerate(members)],
    )
    rollout.roll_out(tx, context, records.job(tx, job_id))
    lifecycle.complete(tx, context, job_id)  # a group without members leaves nothing to do


def resolve(tx: Tx, targets: list[str]) -> list[str]:
    """The things behind ARNs of things and groups (child groups included), each once, in order.

    Raises InvalidRequestException, or ResourceNotFoundException for the first target that does not exist.
    """
    if not 1 <= len(targets) <= MAX_TARGETS:
        raise invalid(f"targets must have 1-{MAX_TARGETS} ARNs, not {len(targets)}")
    members: dict[str, None] = {}
    for target in targets:
        if target.startswith(names.arn("thinggroup/")):
            group = names.resource(target, "thinggroup")
            if groups.get(tx, group) is None:
                raise not_found(f"Thing Group {group} cannot be found.")
            members.update(dict.fromkeys(groups.members(tx, group, recursive=True)))
        else:
            thing = names.resource(target, "thing")
            if things.get(tx, thing) is None:
                raise not_found(f"Thing {thing} cannot be found.")
            members[thing] = None
    return list(members)
