# SPDX-License-Identifier: Apache-2.0
"""What a template asks for → the registry. The caller wraps it in a savepoint, so a failure leaves nothing behind.

Source: aws-iot-protocol.md sections 6.4 (override semantics), D.7 (order). The certificate becomes ACTIVE last, so
that nobody is let in before every policy of the template is in place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgefleet import names, pki
from edgefleet.errors import ApiError, not_found
from edgefleet.pki import Authority
from edgefleet.provisioning.language import Wanted, WantedCertificate, WantedPolicy, WantedThing
from edgefleet.registry import attributes, certificates, groups, policies, things
from edgefleet.registry.policies import Target
from edgefleet.store import Tx


@dataclass(frozen=True)
class Applied:
    """arns: by logical name of the resource."""

    thing_name: str | None
    certificate_pem: str | None
    arns: dict[str, str]


def apply(tx: Tx, wanted: Wanted, authority: Authority) -> Applied:
    """Make or change thing, certificate, attachments, groups and policies.

    Raises ApiError: ConflictingResourceUpdateException 409 where an existing thing or certificate differs and the
    template says FAIL; otherwise what the registry says, with the resource's logical name in front.
    """
    arns: dict[str, str] = {}
    thing, certificate = wanted.thing, wanted.certificate
    if thing is not None:
        with _about(thing.logical):
            _apply_thing(tx, thing)
        arns[thing.logical] = names.arn(f"thing/{thing.name}")
    if certificate is None:
        return Applied(thing.name if thing else None, None, arns)
    with _about(certificate.logical):
        certificate_id = _certificate(tx, certificate, authority)
        if thing is not None:
            certificates.attach(tx, thing.name, certificate_id, certificate.exclusive)
    arns[certificate.logical] = names.arn(f"cert/{certificate_id}")
    for policy in wanted.policies:
        with _about(policy.logical):
            name = _policy(tx, policy)
            policies.attach(tx, name, Target("cert", certificate_id))
        arns[policy.logical] = names.arn(f"policy/{name}")
    with _about(certificate.logical):
        _set_status(tx, certificate, certificate_id)
    pem = certificates.require(tx, certificate_id)["certificatePem"]
    return Applied(thing.name if thing else None, pem, arns)


@contextmanager
def _about(logical: str) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        raise ApiError(error.code, f"Resources.{logical}: {error.message}", error.status, **error.extra) from error


def _apply_thing(tx: Tx, wanted: WantedThing) -> None:
    existing = things.get(tx, wanted.name)
    if existing is None:
        things.create(tx, wanted.name, wanted.type_name, wanted.attributes)
        for group in wanted.groups or []:
            groups.add_thing(tx, group, wanted.name)
        return
    _override_type(tx, wanted, existing)
    _override_attributes(tx, wanted, existing)
    _override_groups(tx, wanted)


def _override_type(tx: Tx, wanted: WantedThing, existing: things.Thing) -> None:
    old, new = existing["thingTypeName"], wanted.type_name
    if new is not None and new != old and _decide(wanted, "ThingTypeName", f"has type {old}, not {new}"):
        things.update(tx, wanted.name, new)


def _override_attributes(tx: Tx, wanted: WantedThing, existing: things.Thing) -> None:
    if wanted.attributes is None:
        return
    merge = wanted.overrides.get("AttributePayload") == "MERGE"
    if attributes.merged(existing["attributes"], wanted.attributes, merge) != existing["attributes"] and _decide(
        wanted, "AttributePayload", "has other attributes"
    ):
        things.update(tx, wanted.name, attributes=wanted.attributes, merge=merge)


def _override_groups(tx: Tx, wanted: WantedThing) -> None:
    if wanted.groups is None:
        return
    old, new = set(groups.groups_of(tx, wanted.name)), set(wanted.groups)
    if wanted.overrides.get("ThingGroups") == "MERGE":
        new |= old
    if new != old and _decide(wanted, "ThingGroups", "is in other groups"):
        for group in sorted(old - new):
            groups.remove_thing(tx, group, wanted.name)
        for group in sorted(new - old):
            groups.add_thing(tx, group, wanted.name)


def _decide(wanted: WantedThing, setting: str, difference: str) -> bool:
    """Whether to go on where an existing thing differs. Raises if the setting is FAIL, the default."""
    override = wanted.overrides.get(setting, "FAIL")
    if override == "FAIL":
        raise conflict(f"thing {wanted.name} exists and {difference}; OverrideSettings.{setting} is FAIL")
    return override != "DO_NOTHING"


def _certificate(tx: Tx, wanted: WantedCertificate, authority: Authority) -> str:
    """The id of the certificate, registered if it is new."""
    if wanted.source == "CertificateId":
        return certificates.require(tx, wanted.value)["certificateId"]
    if wanted.source == "CertificateSigningRequest":
        pem, _ = authority.issue_device(wanted.value)
        return certificates.register(tx, pem, certificates.INACTIVE)
    certificate_id = pki.certificate_id(wanted.value)
    if certificates.get(tx, certificate_id) is None:
        certificates.register(tx, wanted.value, wanted.status or certificates.INACTIVE)
    return certificate_id


def _set_status(tx: Tx, wanted: WantedCertificate, certificate_id: str) -> None:
    old = certificates.require(tx, certificate_id)["status"]
    if wanted.status is None or wanted.status == old:
        return
    fresh = wanted.source == "CertificateSigningRequest" or old == certificates.PENDING
    if not fresh and wanted.override == "FAIL":
        raise conflict(f"the certificate is {old}, not {wanted.status}; OverrideSettings.Status is FAIL")
    if fresh or wanted.override == "REPLACE":
        certificates.set_status(tx, certificate_id, wanted.status)


def _policy(tx: Tx, wanted: WantedPolicy) -> str:
    """The name of the policy. One given as a document is named by its hash, so that a fleet shares one policy."""
    if wanted.document is None:
        assert wanted.name is not None
        if policies.get(tx, wanted.name) is None:
            raise not_found(f"Policy not found: {wanted.name[:128]}")
        return wanted.name
    name = hashlib.sha256(wanted.document.encode()).hexdigest()
    if policies.get(tx, name) is None:
        policies.create(tx, name, wanted.document)
    return name


def conflict(message: str) -> ApiError:
    return ApiError("ConflictingResourceUpdateException", message, 409)
