# SPDX-License-Identifier: Apache-2.0
"""Provisioning templates and their versions (aws-iot-protocol.md section 6.4, control plane)."""

from __future__ import annotations

import time
from typing import TypedDict

from edgefleet import names
from edgefleet.errors import ApiError, already_exists, invalid, limit_exceeded, not_found
from edgefleet.provisioning import language
from edgefleet.registry import listing
from edgefleet.store import Tx

TEMPLATES = 256
VERSIONS = 5
DESCRIPTION = 500


class Template(TypedDict):
    templateName: str
    description: str | None
    enabled: bool
    provisioningRoleArn: str
    defaultVersionId: int
    creationDate: float
    lastModifiedDate: float


class Version(TypedDict):
    versionId: int
    templateBody: str
    isDefaultVersion: bool
    creationDate: float


def create(
    tx: Tx, name: str, body: str, role_arn: str, *, description: str | None = None, enabled: bool = False
) -> Template:
    """Raises InvalidRequestException (naming the member), ResourceAlreadyExistsException, LimitExceededException."""
    names.check("templateName", name)
    language.parse(body, fleet=True)
    _check_description(description)
    if get(tx, name) is not None:
        raise already_exists(
            f"Provisioning template {name} already exists",
            resourceId=name,
            resourceArn=names.arn(f"provisioningtemplate/{name}"),
        )
    if tx.value("SELECT count(*) FROM provisioning_templates") >= TEMPLATES:
        raise limit_exceeded(f"There are already {TEMPLATES} provisioning templates")
    now = time.time()
    tx.execute(
        "INSERT INTO provisioning_templates VALUES (?, ?, ?, ?, 1, 1, ?, ?)",
        (name, description, int(enabled), role_arn, now, now),
    )
    tx.execute("INSERT INTO provisioning_template_versions VALUES (?, 1, ?, ?)", (name, body, now))
    return require(tx, name)


def get(tx: Tx, name: str) -> Template | None:
    row = tx.one("SELECT * FROM provisioning_templates WHERE name = ?", (name,))
    if row is None:
        return None
    return Template(
        templateName=row["name"],
        description=row["description"],
        enabled=bool(row["enabled"]),
        provisioningRoleArn=row["role_arn"],
        defaultVersionId=row["default_version"],
        creationDate=row["created_at"],
        lastModifiedDate=row["modified_at"],
    )


def require(tx: Tx, name: str) -> Template:
    """The template. Raises ResourceNotFoundException."""
    found = get(tx, name)
    if found is None:
        raise not_found(f"Provisioning template {name[:36]} not found")
    return found


def update(
    tx: Tx,
    name: str,
    *,
    description: str | None = None,
    enabled: bool | None = None,
    default_version: int | None = None,
    role_arn: str | None = None,
) -> None:
    """Change what is not None. Raises ResourceNotFoundException, InvalidRequestException."""
    old = require(tx, name)
    _check_description(description)
    if default_version is not None:
        version(tx, name, default_version)
    tx.execute(
        "UPDATE provisioning_templates SET description = ?, enabled = ?, default_version = ?, role_arn = ?,"
        " modified_at = ? WHERE name = ?",
        (
            old["description"] if description is None else description,
            int(old["enabled"] if enabled is None else enabled),
            old["defaultVersionId"] if default_version is None else default_version,
            role_arn or old["provisioningRoleArn"],
            time.time(),
            name,
        ),
    )


def delete(tx: Tx, name: str) -> None:
    """Remove a template with all its versions. Raises ResourceNotFoundException."""
    require(tx, name)
    tx.execute("DELETE FROM provisioning_templates WHERE name = ?", (name,))


def list_(tx: Tx, token: str | None = None, size: int | None = None) -> tuple[list[Template], str | None]:
    """A page of templates in name order."""
    rows, following = listing.page(tx, "SELECT name FROM provisioning_templates WHERE 1", [], "name", token, size)
    return [require(tx, row["name"]) for row in rows], following


def create_version(tx: Tx, name: str, body: str, set_default: bool = False) -> Version:
    """Raises ResourceNotFoundException, InvalidRequestException, VersionsLimitExceededException 409."""
    require(tx, name)
    language.parse(body, fleet=True)
    if len(versions(tx, name)) >= VERSIONS:
        raise ApiError("VersionsLimitExceededException", f"Template {name} already has {VERSIONS} versions", 409)
    now = time.time()
    tx.execute(
        "UPDATE provisioning_templates SET last_version = last_version + 1, modified_at = ? WHERE name = ?", (now, name)
    )
    number: int = tx.value("SELECT last_version FROM provisioning_templates WHERE name = ?", (name,))
    tx.execute("INSERT INTO provisioning_template_versions VALUES (?, ?, ?, ?)", (name, number, body, now))
    if set_default:
        update(tx, name, default_version=number)
    return version(tx, name, number)


def versions(tx: Tx, name: str) -> list[Version]:
    """All versions, newest first. Raises ResourceNotFoundException."""
    default = require(tx, name)["defaultVersionId"]
    rows = tx.all("SELECT * FROM provisioning_template_versions WHERE template_name = ? ORDER BY version DESC", (name,))
    return [
        Version(
            versionId=row["version"],
            templateBody=row["body"],
            isDefaultVersion=row["version"] == default,
            creationDate=row["created_at"],
        )
        for row in rows
    ]


def version(tx: Tx, name: str, number: int) -> Version:
    """Raises ResourceNotFoundException."""
    for found in versions(tx, name):
        if found["versionId"] == number:
            return found
    raise not_found(f"Provisioning template {name} has no version {number}")


def delete_version(tx: Tx, name: str, number: int) -> None:
    """Raises DeleteConflictException for the default version, ResourceNotFoundException."""
    if version(tx, name, number)["isDefaultVersion"]:
        raise ApiError("DeleteConflictException", "Cannot delete the default version of a provisioning template", 409)
    tx.execute("DELETE FROM provisioning_template_versions WHERE template_name = ? AND version = ?", (name, number))


def _check_description(description: str | None) -> None:
    if description is not None and len(description) > DESCRIPTION:
        raise invalid(f"description: at most {DESCRIPTION} characters are allowed, not {len(description)}")
