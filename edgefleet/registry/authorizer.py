# SPDX-License-Identifier: Apache-2.0
"""Who may connect and what a connection may do: the registry's answer to the broker (sections 7.7, 7.8, D.5)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from edgefleet import names, pki
from edgefleet.broker.authorizer import Denied
from edgefleet.registry import certificates, policies, policy_language, things
from edgefleet.registry.policies import Applied
from edgefleet.registry.policy_language import Bound, Decision
from edgefleet.store import Store, Tx

# Decisions kept for one connection. A client that uses ever new topics only makes itself slower.
_KEPT_DECISIONS = 1024

_SUBJECT = {
    "country": NameOID.COUNTRY_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizationalunit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "distinguishednamequalifier": NameOID.DN_QUALIFIER,
    "state": NameOID.STATE_OR_PROVINCE_NAME,
    "commonname": NameOID.COMMON_NAME,
    "serialnumber": NameOID.SERIAL_NUMBER,
    "title": NameOID.TITLE,
    "surname": NameOID.SURNAME,
    "givenname": NameOID.GIVEN_NAME,
    "initials": NameOID.INITIALS,
    "pseudonym": NameOID.PSEUDONYM,
    "generationqualifier": NameOID.GENERATION_QUALIFIER,
}

# A document is parsed once, however many certificates it is attached to.
_parse = functools.lru_cache(maxsize=1024)(policy_language.parse)


class RegistryAuthorizer:
    """Implements edgefleet.broker.Authorizer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.epoch = 0  # grows with every change that may alter a decision

    def connect(
        self, certificate_der: bytes, client_id: str, source_ip: str, *, persistent: bool, will_topic: str | None
    ) -> RegistryPrincipal:
        """Judge a CONNECT: the certificate is registered and ACTIVE, and policy allows iot:Connect on client/<id>.

        Raises Denied with the reason, for the log.
        """
        certificate_id = hashlib.sha256(certificate_der).hexdigest()
        connect_attributes = ["PersistentConnect"] if persistent else []
        if will_topic is not None:
            connect_attributes.append("LastWill")
        with self._store.reading() as tx:
            certificate = certificates.get(tx, certificate_id)
            if certificate is None:
                raise Denied(f"certificate {certificate_id} is not registered")
            if certificate["status"] != certificates.ACTIVE:
                raise Denied(f"certificate {certificate_id} is {certificate['status']}")
            thing_name = associated_thing(tx, certificate_id, client_id)
        principal = RegistryPrincipal(
            self, self._store, certificate_id, client_id, thing_name, source_ip, connect_attributes
        )
        if not principal.allows("iot:Connect", f"client/{client_id}"):
            raise Denied(f"no policy of certificate {certificate_id} allows iot:Connect on client/{client_id}")
        return principal

    def certificate_active(self, certificate_der: bytes) -> bool:
        certificate_id = hashlib.sha256(certificate_der).hexdigest()
        with self._store.reading() as tx:
            certificate = certificates.get(tx, certificate_id)
        return certificate is not None and certificate["status"] == certificates.ACTIVE

    def forget(self) -> None:
        """Something that decisions depend on has changed: every principal looks again at its next use."""
        self.epoch += 1


class RegistryPrincipal:
    """One connection. `thing_name` is its association at CONNECT and stays; decisions follow the registry."""

    def __init__(
        self,
        authorizer: RegistryAuthorizer,
        store: Store,
        certificate_id: str,
        client_id: str,
        thing_name: str | None,
        source_ip: str,
        connect_attributes: list[str],
    ) -> None:
        self.certificate_id = certificate_id
        self.thing_name = thing_name
        self._authorizer = authorizer
        self._store = store
        self._client_id = client_id
        self._source_ip = source_ip
        self._connect_attributes = connect_attributes
        self._epoch = -1
        self._facts: object = None  # what `_bound` was made from
        self._bound: Bound | None = None  # None: the certificate may do nothing
        self._decisions: dict[tuple[str, str], bool] = {}

    def allows(self, action: str, resource: str) -> bool:
        """`action`: `iot:Publish` …; `resource`: `topic/T`, `topicfilter/F`, `client/C`."""
        if self._epoch != self._authorizer.epoch:
            self._look_again()
        key = (action, resource)
        decision = self._decisions.get(key)
        if decision is None:
            decision = self._bound is not None and self._bound.decide(action, names.arn(resource)) is Decision.ALLOWED
            if len(self._decisions) >= _KEPT_DECISIONS:
                self._decisions.clear()
            self._decisions[key] = decision
        return decision

    def _look_again(self) -> None:
        """Read the facts; compile only if they are others than before. One change of one policy makes every
        connection look, and most find nothing new."""
        epoch = self._authorizer.epoch
        with self._store.reading() as tx:
            certificate = certificates.get(tx, self.certificate_id)
            if certificate is None or certificate["status"] != certificates.ACTIVE:
                facts: object = None
            else:
                thing_name = associated_thing(tx, self.certificate_id, self._client_id)
                thing = things.get(tx, thing_name) if thing_name is not None else None
                applied = policies.applied(tx, self.certificate_id, thing_name)
                facts = (thing, applied)
            if self._epoch == -1 or facts != self._facts:
                self._decisions = {}
                self._bound = None
                if facts is not None:
                    assert certificate is not None
                    pem = certificate["certificatePem"] if _needs_certificate(applied) else None
                    context = connection_context(
                        self._client_id,
                        self._source_ip,
                        self.certificate_id,
                        thing,
                        self._connect_attributes,
                        pem,
                    )
                    self._bound = bind(applied, context)
                self._facts = facts
        self._epoch = epoch


def associated_thing(tx: Tx, certificate_id: str, client_id: str) -> str | None:
    """The thing a connection acts for: an exclusively attached one, else the attached one named as the client id."""
    for attachment in certificates.attachments(tx, certificate_id):
        if attachment["exclusive"] or attachment["thingName"] == client_id:
            return attachment["thingName"]
    return None


def bind(applied: Iterable[Applied], context: dict[str, str | list[str]]) -> Bound:
    return Bound([(policy.name, _parse(policy.document)) for policy in applied], context)


def connection_context(
    client_id: str | None,
    source_ip: str | None,
    certificate_id: str | None,
    thing: things.Thing | None,
    connect_attributes: list[str],
    certificate_pem: str | None,
) -> dict[str, str | list[str]]:
    """The policy variables of a connection (table in section 7.8); what is not known is left out, so it does not
    resolve. certificate_pem: only needed if a policy asks for `iot:Certificate.*`.
    """
    context: dict[str, str | list[str]] = {
        "iot:connectattributes": connect_attributes,
        "iot:connection.thing.isattached": "false" if thing is None else "true",
    }
    for name, value in (
        ("iot:clientid", client_id),
        ("aws:sourceip", source_ip),
        ("iot:certificateid", certificate_id),
    ):
        if value is not None:
            context[name] = value
    if thing is not None:
        context["iot:connection.thing.thingname"] = thing["thingName"]
        if thing["thingTypeName"] is not None:
            context["iot:connection.thing.thingtypename"] = thing["thingTypeName"]
        for name, value in thing["attributes"].items():
            context[f"iot:connection.thing.attributes[{name}]"] = value
    if certificate_pem is not None:
        context.update(_certificate_variables(pki.load_certificate(certificate_pem)))
    return context


def _needs_certificate(applied: Iterable[Applied]) -> bool:
    return any("iot:certificate." in policy.document.lower() for policy in applied)


def _certificate_variables(certificate: x509.Certificate) -> dict[str, str | list[str]]:
    """Multi-valued members appear under the plain name (first value), `.0`, `.1` … and `.List`."""
    found: dict[str, list[str]] = {}
    for side, name in (("subject", certificate.subject), ("issuer", certificate.issuer)):
        for member, oid in _SUBJECT.items():
            values = [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]
            if values:
                found[f"iot:certificate.{side}.{member}"] = values
    for side, oid in (
        ("subject", ExtensionOID.SUBJECT_ALTERNATIVE_NAME),
        ("issuer", ExtensionOID.ISSUER_ALTERNATIVE_NAME),
    ):
        for member, values in _alternative_names(certificate, oid).items():
            found[f"iot:certificate.{side}.alternativename.{member}"] = values
    variables: dict[str, str | list[str]] = {"iot:certificate.serialnumber": f"{certificate.serial_number:x}"}
    for key, values in found.items():
        variables[key] = values[0]
        variables[f"{key}.list"] = values
        variables.update({f"{key}.{number}": value for number, value in enumerate(values)})
    variables["iot:certificate.availablekeys"] = sorted(found)
    return variables


def _alternative_names(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> dict[str, list[str]]:
    try:
        extension = certificate.extensions.get_extension_for_oid(oid).value
    except (x509.ExtensionNotFound, ValueError):
        return {}
    assert isinstance(extension, x509.SubjectAlternativeName | x509.IssuerAlternativeName)
    found = {
        "rfc822name": [str(value) for value in extension.get_values_for_type(x509.RFC822Name)],
        "dnsname": [str(value) for value in extension.get_values_for_type(x509.DNSName)],
        "directoryname": [value.rfc4514_string() for value in extension.get_values_for_type(x509.DirectoryName)],
        "uniformresourceidentifier": [
            str(value) for value in extension.get_values_for_type(x509.UniformResourceIdentifier)
        ],
        "ipaddress": [str(value) for value in extension.get_values_for_type(x509.IPAddress)],
    }
    return {member: values for member, values in found.items() if values}
