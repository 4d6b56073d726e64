# SPDX-License-Identifier: Apache-2.0
"""HTTP operations of provisioning: templates, RegisterThing, bulk tasks (sections 6.4 to 6.6)."""

from __future__ import annotations

from typing import Any

from edgefleet import names, paging
from edgefleet.errors import ApiError, invalid, not_implemented
from edgefleet.pki import Authority
from edgefleet.provisioning import bulk, language, templates
from edgefleet.provisioning.apply import apply
from edgefleet.provisioning.bulk import BulkTasks
from edgefleet.provisioning.expressions import Unresolved
from edgefleet.registry.listing import MOST, with_token
from edgefleet.store import Tx


class ProvisioningOperations:
    def __init__(self, authority: Authority, tasks: BulkTasks) -> None:
        self._authority = authority
        self._tasks = tasks

    def create_provisioning_template(
        self,
        tx: Tx,
        *,
        templateName: str,
        templateBody: str,
        provisioningRoleArn: str,
        description: str | None = None,
        enabled: bool = False,
        type: str = "FLEET_PROVISIONING",
    ) -> dict[str, Any]:
        if type != "FLEET_PROVISIONING":
            raise not_implemented(f"provisioning templates of type {type}")
        made = templates.create(
            tx, templateName, templateBody, provisioningRoleArn, description=description, enabled=enabled
        )
        return {**_named(templateName), "defaultVersionId": made["defaultVersionId"]}

    def describe_provisioning_template(self, tx: Tx, *, templateName: str) -> dict[str, Any]:
        found = templates.require(tx, templateName)
        body = templates.version(tx, templateName, found["defaultVersionId"])["templateBody"]
        return {
            **_summary(found),
            "defaultVersionId": found["defaultVersionId"],
            "templateBody": body,
            "provisioningRoleArn": found["provisioningRoleArn"],
        }

    def update_provisioning_template(
        self,
        tx: Tx,
        *,
        templateName: str,
        description: str | None = None,
        enabled: bool | None = None,
        defaultVersionId: int | None = None,
        provisioningRoleArn: str | None = None,
    ) -> dict[str, Any]:
        templates.update(
            tx,
            templateName,
            description=description,
            enabled=enabled,
            default_version=defaultVersionId,
            role_arn=provisioningRoleArn,
        )
        return {}

    def delete_provisioning_template(self, tx: Tx, *, templateName: str) -> dict[str, Any]:
        templates.delete(tx, templateName)
        return {}

    def list_provisioning_templates(
        self, tx: Tx, *, maxResults: int | None = None, nextToken: str | None = None
    ) -> dict[str, Any]:
        found, token = templates.list_(tx, nextToken, maxResults)
        return with_token({"templates": [_summary(one) for one in found]}, token)

    def create_provisioning_template_version(
        self, tx: Tx, *, templateName: str, templateBody: str, setAsDefault: bool = False
    ) -> dict[str, Any]:
        made = templates.create_version(tx, templateName, templateBody, setAsDefault)
        return {
            **_named(templateName),
            "versionId": made["versionId"],
            "isDefaultVersion": made["isDefaultVersion"],
        }

    def describe_provisioning_template_version(self, tx: Tx, *, templateName: str, versionId: int) -> dict[str, Any]:
        return {**templates.version(tx, templateName, versionId)}

    def delete_provisioning_template_version(self, tx: Tx, *, templateName: str, versionId: int) -> dict[str, Any]:
        templates.delete_version(tx, templateName, versionId)
        return {}

    def list_provisioning_template_versions(
        self, tx: Tx, *, templateName: str, maxResults: int | None = None, nextToken: str | None = None
    ) -> dict[str, Any]:
        limit = paging.limit(maxResults, MOST)
        before = paging.decode(nextToken, int)
        found = [one for one in templates.versions(tx, templateName) if before is None or one["versionId"] < before[0]]
        listed = [{key: value for key, value in one.items() if key != "templateBody"} for one in found[:limit]]
        token = paging.encode(found[limit - 1]["versionId"]) if len(found) > limit else None
        return with_token({"versions": listed}, token)

    def register_thing(self, tx: Tx, *, templateBody: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
        """Registry errors other than conflicts become ResourceRegistrationFailureException 400 (section 6.5)."""
        template = language.parse(templateBody, fleet=False)
        try:
            with tx.savepoint():
                applied = apply(tx, template.evaluate(parameters or {}), self._authority)
        except Unresolved as error:
            raise _failure(str(error)) from error
        except ApiError as error:
            if error.code == "ConflictingResourceUpdateException":
                raise
            raise _failure(error.message) from error
        result: dict[str, Any] = {"resourceArns": applied.arns}
        if applied.certificate_pem is not None:
            result["certificatePem"] = applied.certificate_pem
        return result

    def start_thing_registration_task(
        self, tx: Tx, *, templateBody: str, inputFileBucket: str, inputFileKey: str, roleArn: str
    ) -> dict[str, Any]:
        return {"taskId": self._tasks.start(tx, templateBody, inputFileBucket, inputFileKey, roleArn)}

    def describe_thing_registration_task(self, tx: Tx, *, taskId: str) -> dict[str, Any]:
        return {name: value for name, value in self._tasks.describe(tx, taskId).items() if value is not None}

    def list_thing_registration_tasks(
        self, tx: Tx, *, nextToken: str | None = None, maxResults: int | None = None, status: str | None = None
    ) -> dict[str, Any]:
        if status is not None and status not in bulk.STATUSES:
            raise invalid(f"status: must be one of {', '.join(bulk.STATUSES)}")
        found, token = self._tasks.list(tx, status, nextToken, maxResults)
        return with_token({"taskIds": found}, token)

    def stop_thing_registration_task(self, tx: Tx, *, taskId: str) -> dict[str, Any]:
        self._tasks.stop(tx, taskId)
        return {}

    def list_thing_registration_task_reports(
        self, tx: Tx, *, taskId: str, reportType: str, nextToken: str | None = None, maxResults: int | None = None
    ) -> dict[str, Any]:
        links, token = self._tasks.reports(tx, taskId, reportType, nextToken, maxResults)
        return with_token({"resourceLinks": links, "reportType": reportType}, token)


def _named(name: str) -> dict[str, Any]:
    return {"templateArn": names.arn(f"provisioningtemplate/{name}"), "templateName": name}


def _summary(found: templates.Template) -> dict[str, Any]:
    summary = {
        **_named(found["templateName"]),
        "creationDate": found["creationDate"],
        "lastModifiedDate": found["lastModifiedDate"],
        "enabled": found["enabled"],
        "type": "FLEET_PROVISIONING",
    }
    if found["description"] is not None:
        summary["description"] = found["description"]
    return summary


def _failure(message: str) -> ApiError:
    return ApiError("ResourceRegistrationFailureException", message, 400)
