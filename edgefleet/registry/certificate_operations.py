# SPDX-License-Identifier: Apache-2.0
"""HTTP operations on certificates and their attachment to things (sections 7.6, 7.7)."""

from __future__ import annotations

from typing import Any, Literal

from edgefleet import names, paging, pki
from edgefleet.registry import certificates, things
from edgefleet.registry.certificates import Attachment, Certificate
from edgefleet.registry.listing import MOST, with_token
from edgefleet.store import Tx

EXCLUSIVE, NON_EXCLUSIVE = "EXCLUSIVE_THING", "NON_EXCLUSIVE_THING"


class CertificateOperations:
    """authority: issues the certificates. key_type: of keys made here, `ec` or `rsa2048` (about 0.1 s each)."""

    def __init__(self, authority: pki.Authority, key_type: str = "ec") -> None:
        self._authority = authority
        self._key_type = key_type

    def create_keys_and_certificate(self, tx: Tx, *, setAsActive: bool = False) -> dict[str, Any]:
        pem, key = self._authority.issue_device(key_type=self._key_type)
        made = self._register(tx, pem, setAsActive)
        return {**made, "keyPair": {"PublicKey": pki.public_key_pem(pem), "PrivateKey": key}}

    def create_certificate_from_csr(
        self, tx: Tx, *, certificateSigningRequest: str, setAsActive: bool = False
    ) -> dict[str, Any]:
        pem, _ = self._authority.issue_device(certificateSigningRequest)
        return self._register(tx, pem, setAsActive)

    def _register(self, tx: Tx, pem: str, active: bool) -> dict[str, Any]:
        certificate_id = certificates.register(tx, pem, certificates.ACTIVE if active else certificates.INACTIVE)
        return {**_identified(certificate_id), "certificatePem": pem}

    def describe_certificate(self, tx: Tx, *, certificateId: str) -> dict[str, Any]:
        found = certificates.require(tx, certificateId)
        return {
            "certificateDescription": {
                **_listed(found),
                "certificatePem": found["certificatePem"],
                "ownedBy": names.ACCOUNT,
                "lastModifiedDate": found["lastModifiedDate"],
                "customerVersion": found["customerVersion"],
                "generationId": found["generationId"],
                "validity": {"notBefore": found["notBefore"], "notAfter": found["notAfter"]},
            }
        }

    def update_certificate(self, tx: Tx, *, certificateId: str, newStatus: str) -> dict[str, Any]:
        certificates.set_status(tx, certificateId, newStatus)
        return {}

    def delete_certificate(self, tx: Tx, *, certificateId: str, forceDelete: bool = False) -> dict[str, Any]:
        certificates.delete(tx, certificateId, forceDelete)
        return {}

    def list_certificates(
        self, tx: Tx, *, pageSize: int | None = None, marker: str | None = None, ascendingOrder: bool = False
    ) -> dict[str, Any]:
        found, token = certificates.list_(tx, ascending=ascendingOrder, token=marker, size=pageSize)
        return with_token({"certificates": [_listed(one) for one in found]}, token, "nextMarker")

    def attach_thing_principal(
        self, tx: Tx, *, thingName: str, principal: str, thingPrincipalType: str = NON_EXCLUSIVE
    ) -> dict[str, Any]:
        certificates.attach(tx, thingName, names.resource(principal, "cert"), thingPrincipalType == EXCLUSIVE)
        return {}

    def detach_thing_principal(self, tx: Tx, *, thingName: str, principal: str) -> dict[str, Any]:
        certificates.detach(tx, thingName, names.resource(principal, "cert"))
        return {}

    def list_thing_principals(
        self, tx: Tx, *, thingName: str, nextToken: str | None = None, maxResults: int | None = None
    ) -> dict[str, Any]:
        page, token = _of_thing(tx, thingName, None, nextToken, maxResults)
        return with_token({"principals": [_principal(one) for one in page]}, token)

    def list_thing_principals_v2(
        self,
        tx: Tx,
        *,
        thingName: str,
        thingPrincipalType: str | None = None,
        nextToken: str | None = None,
        maxResults: int | None = None,
    ) -> dict[str, Any]:
        page, token = _of_thing(tx, thingName, thingPrincipalType, nextToken, maxResults)
        listed = [{"principal": _principal(one), "thingPrincipalType": _kind(one)} for one in page]
        return with_token({"thingPrincipalObjects": listed}, token)

    def list_principal_things(
        self, tx: Tx, *, principal: str, nextToken: str | None = None, maxResults: int | None = None
    ) -> dict[str, Any]:
        page, token = _of_principal(tx, principal, None, nextToken, maxResults)
        return with_token({"things": [one["thingName"] for one in page]}, token)

    def list_principal_things_v2(
        self,
        tx: Tx,
        *,
        principal: str,
        thingPrincipalType: str | None = None,
        nextToken: str | None = None,
        maxResults: int | None = None,
    ) -> dict[str, Any]:
        page, token = _of_principal(tx, principal, thingPrincipalType, nextToken, maxResults)
        listed = [{"thingName": one["thingName"], "thingPrincipalType": _kind(one)} for one in page]
        return with_token({"principalThingObjects": listed}, token)


def _identified(certificate_id: str) -> dict[str, Any]:
    return {"certificateArn": names.arn(f"cert/{certificate_id}"), "certificateId": certificate_id}


def _listed(found: Certificate) -> dict[str, Any]:
    return {
        **_identified(found["certificateId"]),
        "status": found["status"],
        "certificateMode": "DEFAULT",
        "creationDate": found["creationDate"],
    }


def _kind(attachment: Attachment) -> str:
    return EXCLUSIVE if attachment["exclusive"] else NON_EXCLUSIVE


def _principal(attachment: Attachment) -> str:
    return names.arn(f"cert/{attachment['certificateId']}")


def _of_thing(
    tx: Tx, thing: str, kind: str | None, token: str | None, size: int | None
) -> tuple[list[Attachment], str | None]:
    things.require(tx, thing)
    return _page(certificates.attachments_of_thing(tx, thing), "certificateId", kind, token, size)


def _of_principal(
    tx: Tx, principal: str, kind: str | None, token: str | None, size: int | None
) -> tuple[list[Attachment], str | None]:
    certificate_id = names.resource(principal, "cert")
    certificates.require(tx, certificate_id)
    return _page(certificates.attachments(tx, certificate_id), "thingName", kind, token, size)


def _page(
    attachments: list[Attachment],
    key: Literal["thingName", "certificateId"],
    kind: str | None,
    token: str | None,
    size: int | None,
) -> tuple[list[Attachment], str | None]:
    limit = paging.limit(size, MOST)
    after = paging.decode(token, str)
    found = [
        one for one in attachments if (kind is None or _kind(one) == kind) and (after is None or one[key] > after[0])
    ]
    return found[:limit], paging.encode(found[limit - 1][key]) if len(found) > limit else None
