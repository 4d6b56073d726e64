# SPDX-License-Identifier: Apache-2.0
"""Policies, their versions, and what they are attached to (aws-iot-protocol.md section 7.8)."""

from __future__ import annotations

import sqlite3
import time
import uuid
from typing import NamedTuple, TypedDict

from edgefleet import names
from edgefleet.errors import ApiError, already_exists, invalid, limit_exceeded, not_found
from edgefleet.registry import certificates, groups, policy_language
from edgefleet.store import Tx

VERSIONS = 5
PER_CERTIFICATE = 10
PER_GROUP = 2


class Policy(TypedDict):
    policyName: str
    policyDocument: str  # of the default version
    defaultVersionId: str
    creationDate: float
    lastModifiedDate: float
    generationId: str


class Version(TypedDict):
    policyVersionId: str
    policyDocument: str
    isDefaultVersion: bool
    creationDate: float


class Target(NamedTuple):
    kind: str  # "cert" or "thinggroup"
    name: str  # certificate id or group name

    @property
    def arn(self) -> str:
        return names.arn(f"{self.kind}/{self.name}")


class Applied(NamedTuple):
    """A policy that applies to a principal, in its default version."""

    name: str
    version: int
    document: str


def create(tx: Tx, name: str, document: str) -> Policy:
    """Raises MalformedPolicyException, ResourceAlreadyExistsException, InvalidRequestException (name)."""
    names.check("policyName", name)
    policy_language.parse(document)
    if get(tx, name) is not None:
        raise already_exists(f"Policy {name} already exists", resourceId=name, resourceArn=names.arn(f"policy/{name}"))
    now = time.time()
    tx.execute(
        "INSERT INTO policies (name, default_version, last_version, created_at, modified_at, generation_id)"
        " VALUES (?, 1, 1, ?, ?, ?)",
        (name, now, now, str(uuid.uuid4())),
    )
    tx.execute("INSERT INTO policy_versions VALUES (?, 1, ?, ?)", (name, document, now))
    return require(tx, name)


def get(tx: Tx, name: str) -> Policy | None:
    row = tx.one(
        "SELECT p.*, v.document FROM policies p JOIN policy_versions v"
        " ON v.policy_name = p.name AND v.version = p.default_version WHERE p.name = ?",
        (name,),
    )
    if row is None:
        return None
    return Policy(
        policyName=row["name"],
        policyDocument=row["document"],
        defaultVersionId=str(row["default_version"]),
        creationDate=row["created_at"],
        lastModifiedDate=row["modified_at"],
        generationId=row["generation_id"],
    )


def require(tx: Tx, name: str) -> Policy:
    """The policy. Raises ResourceNotFoundException."""
    found = get(tx, name)
    if found is None:
        raise not_found("Policy not found")
    return found


def delete(tx: Tx, name: str) -> None:
    """Raises DeleteConflictException while attached or while other versions exist, ResourceNotFoundException."""
    require(tx, name)
    if targets(tx, name):
        raise ApiError("DeleteConflictException", f"Policy {name} is attached to targets; detach it first", 409)
    if len(versions(tx, name)) > 1:
        raise ApiError("DeleteConflictException", f"Policy {name} has other versions; delete them first", 409)
    tx.execute("DELETE FROM policies WHERE name = ?", (name,))


def create_version(tx: Tx, name: str, document: str, set_default: bool = False) -> Version:
    """Raises MalformedPolicyException, VersionsLimitExceededException 409, ResourceNotFoundException."""
    require(tx, name)
    policy_language.parse(document)
    if len(versions(tx, name)) >= VERSIONS:
        raise ApiError("VersionsLimitExceededException", f"Policy {name} already has {VERSIONS} versions", 409)
    now = time.time()
    tx.execute("UPDATE policies SET last_version = last_version + 1, modified_at = ? WHERE name = ?", (now, name))
    number = tx.value("SELECT last_version FROM policies WHERE name = ?", (name,))
    tx.execute("INSERT INTO policy_versions VALUES (?, ?, ?, ?)", (name, number, document, now))
    if set_default:
        set_default_version(tx, name, str(number))
    return version(tx, name, str(number))


def version(tx: Tx, name: str, version_id: str) -> Version:
    """Raises ResourceNotFoundException, InvalidRequestException if the id is not a number."""
    row = tx.one(
        "SELECT v.*, p.default_version FROM policy_versions v JOIN policies p ON p.name = v.policy_name"
        " WHERE v.policy_name = ? AND v.version = ?",
        (name, _number(version_id)),
    )
    if row is None:
        raise not_found("Policy version not found" if get(tx, name) else "Policy not found")
    return _version(row)


def versions(tx: Tx, name: str) -> list[Version]:
    """All versions, newest first."""
    rows = tx.all(
        "SELECT v.*, p.default_version FROM policy_versions v JOIN policies p ON p.name = v.policy_name"
        " WHERE v.policy_name = ? ORDER BY v.version DESC",
        (name,),
    )
    return [_version(row) for row in rows]


def set_default_version(tx: Tx, name: str, version_id: str) -> None:
    """Connections are judged by the new version at once. Raises ResourceNotFoundException."""
    version(tx, name, version_id)
    tx.execute(
        "UPDATE policies SET default_version = ?, modified_at = ? WHERE name = ?",
        (_number(version_id), time.time(), name),
    )
    tx.policies_changed = True


def delete_version(tx: Tx, name: str, version_id: str) -> None:
    """Raises DeleteConflictException for the default version, ResourceNotFoundException."""
    if version(tx, name, version_id)["isDefaultVersion"]:
        raise ApiError("DeleteConflictException", "Cannot delete the default version of a policy", 409)
    tx.execute("DELETE FROM policy_versions WHERE policy_name = ? AND version = ?", (name, _number(version_id)))


def parse_target(target: str) -> Target:
    """The certificate or group an ARN names. Raises InvalidRequestException for anything else."""
    for kind in ("cert", "thinggroup"):
        if target.startswith(names.arn(f"{kind}/")):
            return Target(kind, names.resource(target, kind))
    raise invalid(f"target '{target[:200]}': must be the ARN of a certificate or of a thing group")


def require_target(tx: Tx, target: Target) -> None:
    """Raises ResourceNotFoundException if it does not exist."""
    if target.kind == "cert":
        certificates.require(tx, target.name)
    else:
        groups.require(tx, target.name)


def attach(tx: Tx, name: str, target: Target) -> None:
    """Attach a policy; being attached already is no error.

    Raises ResourceNotFoundException, LimitExceededException 410 (10 a certificate, 2 a group).
    """
    require(tx, name)
    require_target(tx, target)
    current = attached(tx, target)
    if name in current:
        return
    most = PER_CERTIFICATE if target.kind == "cert" else PER_GROUP
    if len(current) >= most:
        raise limit_exceeded(f"At most {most} policies can be attached to {target.arn}")
    tx.execute("INSERT INTO policy_targets (kind, target, policy_name) VALUES (?, ?, ?)", (*target, name))
    _note(tx, target)


def detach(tx: Tx, name: str, target: Target) -> None:
    """Not being attached is no error. Raises ResourceNotFoundException for an unknown policy."""
    require(tx, name)
    tx.execute("DELETE FROM policy_targets WHERE kind = ? AND target = ? AND policy_name = ?", (*target, name))
    _note(tx, target)


def attached(tx: Tx, target: Target) -> list[str]:
    """Names of the policies attached to a target, sorted."""
    return [
        row[0]
        for row in tx.all("SELECT policy_name FROM policy_targets WHERE kind = ? AND target = ? ORDER BY 1", target)
    ]


def attached_recursively(tx: Tx, target: Target) -> list[str]:
    """`attached`, for a group also what is attached to the groups above it."""
    found = set(attached(tx, target))
    if target.kind == "thinggroup":
        for group in groups.ancestors_of(tx, target.name):
            found.update(attached(tx, Target("thinggroup", group)))
    return sorted(found)


def targets(tx: Tx, name: str) -> list[Target]:
    rows = tx.all("SELECT kind, target FROM policy_targets WHERE policy_name = ? ORDER BY 1, 2", (name,))
    return [Target(row[0], row[1]) for row in rows]


def applied(tx: Tx, certificate_id: str | None, thing: str | None) -> list[Applied]:
    """The policies of a certificate and of the groups, with their ancestors, of the thing it acts for (D.5)."""
    found = set()
    if certificate_id is not None:
        found.update(attached(tx, Target("cert", certificate_id)))
    if thing is not None:
        for group in groups.effective_groups_of(tx, thing):
            found.update(attached(tx, Target("thinggroup", group)))
    rows = [
        tx.one(
            "SELECT p.name, p.default_version, v.document FROM policies p JOIN policy_versions v"
            " ON v.policy_name = p.name AND v.version = p.default_version WHERE p.name = ?",
            (name,),
        )
        for name in sorted(found)
    ]
    return [Applied(row[0], row[1], row[2]) for row in rows if row is not None]


def _note(tx: Tx, target: Target) -> None:
    """A certificate that is not ACTIVE has no living connection whose decisions could change."""
    if target.kind == "thinggroup":
        tx.policies_changed = True
    else:
        found = certificates.get(tx, target.name)
        if found is not None and found["status"] == certificates.ACTIVE:
            tx.policies_changed = True


def _version(row: sqlite3.Row) -> Version:
    return Version(
        policyVersionId=str(row["version"]),
        policyDocument=row["document"],
        isDefaultVersion=row["version"] == row["default_version"],
        creationDate=row["created_at"],
    )


def _number(version_id: str) -> int:
    if not (version_id.isascii() and version_id.isdigit() and len(version_id) < 10):
        raise invalid(f"policyVersionId '{version_id[:20]}': must be a number")
    return int(version_id)
