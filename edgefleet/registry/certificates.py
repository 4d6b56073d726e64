# SPDX-License-Identifier: Apache-2.0
"""Certificates, their states, and what they are attached to (aws-iot-protocol.md sections 7.6, 7.7)."""

from __future__ import annotations

import time
import uuid
from typing import TypedDict

from edgefleet import names, paging, pki
from edgefleet.errors import ApiError, already_exists, invalid, not_found
from edgefleet.registry import listing, things
from edgefleet.store import Tx

ACTIVE, INACTIVE, REVOKED, PENDING = "ACTIVE", "INACTIVE", "REVOKED", "PENDING_ACTIVATION"
SETTABLE = (ACTIVE, INACTIVE, REVOKED)
# disconnectReason of a session whose certificate stopped being ACTIVE (section 12.1).
DISCONNECT_REASON = "FORBIDDEN_ACCESS"


class Certificate(TypedDict):
    certificateId: str
    certificatePem: str
    status: str
    creationDate: float
    lastModifiedDate: float
    customerVersion: int
    generationId: str
    notBefore: float
    notAfter: float


class Attachment(TypedDict):
    thingName: str
    certificateId: str
    exclusive: bool


def register(tx: Tx, pem: str, status: str = INACTIVE) -> str:
    """Enter a certificate; returns its id.

    status: ACTIVE, INACTIVE or REVOKED, and for fleet provisioning PENDING_ACTIVATION.
    Raises CertificateValidationException, ResourceAlreadyExistsException, CertificateStateException.
    """
    if status not in (*SETTABLE, PENDING):
        raise state_error(f"Certificates cannot be registered with status {status}")
    parsed = pki.load_certificate(pem)
    certificate_id = pki.certificate_id(pem)
    if get(tx, certificate_id) is not None:
        raise already_exists(
            "The certificate is already registered",
            resourceId=certificate_id,
            resourceArn=names.arn(f"cert/{certificate_id}"),
        )
    now = time.time()
    tx.execute(
        "INSERT INTO certificates (id, pem, status, not_before, not_after, created_at, modified_at, version,"
        " generation_id) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
        (
            certificate_id,
            pem,
            status,
            parsed.not_valid_before_utc.timestamp(),
            parsed.not_valid_after_utc.timestamp(),
            now,
            now,
            str(uuid.uuid4()),
        ),
    )
    return certificate_id


def get(tx: Tx, certificate_id: str) -> Certificate | None:
    row = tx.one("SELECT * FROM certificates WHERE id = ?", (certificate_id,))
    if row is None:
        return None
    return Certificate(
        certificateId=row["id"],
        certificatePem=row["pem"],
        status=row["status"],
        creationDate=row["created_at"],
        lastModifiedDate=row["modified_at"],
        customerVersion=row["version"],
        generationId=row["generation_id"],
        notBefore=row["not_before"],
        notAfter=row["not_after"],
    )


def require(tx: Tx, certificate_id: str) -> Certificate:
    """The certificate. Raises ResourceNotFoundException."""
    found = get(tx, certificate_id)
    if found is None:
        raise not_found(f"The certificate {certificate_id} does not exist.")
    return found


def set_status(tx: Tx, certificate_id: str, status: str) -> None:
    """ACTIVE, INACTIVE or REVOKED. Leaving ACTIVE closes every session of the certificate after the commit.

    Raises ResourceNotFoundException, CertificateStateException 406 for any other status.
    """
    old = require(tx, certificate_id)["status"]
    if status not in SETTABLE:
        raise state_error(f"The certificate status cannot be set to {status}")
    if status == old:
        return
    tx.execute(
        "UPDATE certificates SET status = ?, modified_at = ?, version = version + 1 WHERE id = ?",
        (status, time.time(), certificate_id),
    )
    # A pending certificate was never let in, so no authorizer knows it; a fleet onboarding leaves their caches alone.
    if old != PENDING:
        tx.policies_changed = True
    if old == ACTIVE:
        tx.disconnect(DISCONNECT_REASON, certificate_id=certificate_id)


def delete(tx: Tx, certificate_id: str, force: bool = False) -> None:
    """Raises CertificateStateException 406 while ACTIVE, DeleteConflictException 409 while attached to a thing or,
    without `force`, to a policy; ResourceNotFoundException.
    """
    status = require(tx, certificate_id)["status"]
    if status == ACTIVE:
        raise state_error("The certificate must be deactivated (not ACTIVE) before it is deleted")
    if tx.one("SELECT 1 FROM thing_principals WHERE certificate_id = ?", (certificate_id,)):
        raise ApiError("DeleteConflictException", "Things must be detached before deletion", 409)
    attached = tx.one("SELECT 1 FROM policy_targets WHERE kind = 'cert' AND target = ?", (certificate_id,))
    if attached and not force:
        raise ApiError("DeleteConflictException", "Certificate policies must be detached before deletion", 409)
    discard(tx, certificate_id)


def discard(tx: Tx, certificate_id: str) -> None:
    """Remove a certificate and all that hangs on it: for one that was provisioned and never used (section 6.1)."""
    tx.execute("DELETE FROM thing_principals WHERE certificate_id = ?", (certificate_id,))
    tx.execute("DELETE FROM policy_targets WHERE kind = 'cert' AND target = ?", (certificate_id,))
    tx.execute("DELETE FROM certificates WHERE id = ?", (certificate_id,))


def attach(tx: Tx, thing: str, certificate_id: str, exclusive: bool = False) -> None:
    """Attach a certificate to a thing; being attached already is no error, and takes the kind now given.

    Raises ResourceNotFoundException, InvalidRequestException if it is, or would have to be, another's exclusively.
    """
    things.require(tx, thing)
    status = require(tx, certificate_id)["status"]
    for other in attachments(tx, certificate_id):
        if other["thingName"] != thing and (exclusive or other["exclusive"]):
            raise invalid(
                f"The certificate is attached to thing {other['thingName']}"
                + (" exclusively" if other["exclusive"] else " and cannot be exclusive to another")
            )
    tx.execute(
        "INSERT INTO thing_principals (thing_name, certificate_id, exclusive) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET exclusive = excluded.exclusive",
        (thing, certificate_id, int(exclusive)),
    )
    _note(tx, status)


def detach(tx: Tx, thing: str, certificate_id: str) -> None:
    """Raises ResourceNotFoundException for an unknown thing or certificate; not being attached is no error."""
    things.require(tx, thing)
    status = require(tx, certificate_id)["status"]
    tx.execute("DELETE FROM thing_principals WHERE thing_name = ? AND certificate_id = ?", (thing, certificate_id))
    _note(tx, status)


def attachments(tx: Tx, certificate_id: str) -> list[Attachment]:
    """What a certificate is attached to, by thing name."""
    return _attachments(tx, "certificate_id = ?", certificate_id)


def attachments_of_thing(tx: Tx, thing: str) -> list[Attachment]:
    """What is attached to a thing, by certificate id."""
    return _attachments(tx, "thing_name = ?", thing)


def list_(
    tx: Tx, *, ascending: bool = False, token: str | None = None, size: int | None = None
) -> tuple[list[Certificate], str | None]:
    """A page of certificates by age, newest first unless `ascending`."""
    limit = paging.limit(size, listing.MOST, "pageSize")
    after = paging.decode(token, float, str)
    relation, order = (">", "ASC") if ascending else ("<", "DESC")
    where = f"WHERE (created_at, id) {relation} (?, ?)" if after else ""
    select = f"SELECT id FROM certificates {where} ORDER BY created_at {order}, id {order} LIMIT ?"  # noqa: S608
    found = [require(tx, row["id"]) for row in tx.all(select, [*(after or []), limit + 1])]
    if len(found) <= limit:
        return found, None
    last = found[limit - 1]
    return found[:limit], paging.encode(last["creationDate"], last["certificateId"])


def things_of(tx: Tx, certificate_id: str) -> list[str]:
    """Names of the things a certificate is attached to, sorted."""
    return [attachment["thingName"] for attachment in attachments(tx, certificate_id)]


def _attachments(tx: Tx, where: str, value: str) -> list[Attachment]:
    select = "SELECT thing_name, certificate_id, exclusive FROM thing_principals WHERE "
    rows = tx.all(f"{select}{where} ORDER BY 1, 2", (value,))
    return [Attachment(thingName=row[0], certificateId=row[1], exclusive=bool(row[2])) for row in rows]


def _note(tx: Tx, status: str) -> None:
    """Attachments of a certificate that cannot be connected change no decision of a living connection."""
    if status == ACTIVE:
        tx.policies_changed = True


def state_error(message: str) -> ApiError:
    return ApiError("CertificateStateException", message, 406)
