# SPDX-License-Identifier: Apache-2.0
"""The template language: parse and validate once, evaluate for each device. Pure.

    template = parse(body, fleet=True)
    wanted = template.evaluate({"SerialNumber": "17", "AWS::IoT::Certificate::Id": "…"})

Source: aws-iot-protocol.md sections 6.4, D.7. Members that AWS knows and this fleet manager does not implement
(BillingGroup, PackageVersions, CACertificatePem) are refused when the template is created, never ignored.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgefleet import payload
from edgefleet.errors import ApiError, invalid
from edgefleet.provisioning import expressions
from edgefleet.provisioning.expressions import Mistake, Scope, Text, Texts
from edgefleet.registry import policy_language

BODY_CHARACTERS = 10240
CERTIFICATE_ID = "AWS::IoT::Certificate::Id"
_DEPTH = 24
_POLICIES = 10  # the quota of policies a certificate
_THING, _CERTIFICATE, _POLICY = "AWS::IoT::Thing", "AWS::IoT::Certificate", "AWS::IoT::Policy"
_SOURCES = ("CertificateId", "CertificateSigningRequest", "CertificatePem")
_OVERRIDES: dict[str, dict[str, tuple[str, ...]]] = {
    _THING: {
        "AttributePayload": ("DO_NOTHING", "REPLACE", "FAIL", "MERGE"),
        "ThingTypeName": ("DO_NOTHING", "REPLACE", "FAIL"),
        "ThingGroups": ("DO_NOTHING", "REPLACE", "FAIL", "MERGE"),
    },
    _CERTIFICATE: {"Status": ("DO_NOTHING", "REPLACE", "FAIL")},
    _POLICY: {},
}
_PROPERTIES = {
    _THING: ("ThingName", "AttributePayload", "ThingTypeName", "ThingGroups"),
    _CERTIFICATE: (*_SOURCES, "Status", "ThingPrincipalType"),
    _POLICY: ("PolicyName", "PolicyDocument"),
}


@dataclass(frozen=True)
class WantedThing:
    logical: str
    name: str
    type_name: str | None
    attributes: dict[str, str] | None
    groups: list[str] | None
    overrides: Mapping[str, str]


@dataclass(frozen=True)
class WantedCertificate:
    logical: str
    source: str  # CertificateId, CertificateSigningRequest or CertificatePem
    value: str
    status: str | None  # ACTIVE or INACTIVE
    exclusive: bool
    override: str


@dataclass(frozen=True)
class WantedPolicy:
    logical: str
    name: str | None
    document: str | None


@dataclass(frozen=True)
class Wanted:
    """What a template asks for with given parameters."""

    thing: WantedThing | None
    certificate: WantedCertificate | None
    policies: list[WantedPolicy]
    device_configuration: dict[str, str]


@dataclass(frozen=True)
class _Thing:
    logical: str
    name: Text
    type_name: Text | None
    attributes: dict[str, Text] | None
    groups: Texts | None
    overrides: Mapping[str, str]

    def evaluate(self, parameters: Mapping[str, str]) -> WantedThing:
        attributes = None
        if self.attributes is not None:
            attributes = {name: value(parameters) for name, value in self.attributes.items()}
        return WantedThing(
            self.logical,
            self.name(parameters),
            None if self.type_name is None else self.type_name(parameters),
            attributes,
            None if self.groups is None else self.groups(parameters),
            self.overrides,
        )


@dataclass(frozen=True)
class _Certificate:
    logical: str
    source: str
    value: Text
    status: Text | None
    kind: Text | None
    override: str

    def evaluate(self, parameters: Mapping[str, str]) -> WantedCertificate:
        status = None
        if self.status is not None:
            status = _one_of(
                self.status(parameters).upper(), ("ACTIVE", "INACTIVE"), f"Resources.{self.logical}.Status"
            )
        kind = "NON_EXCLUSIVE_THING"
        if self.kind is not None:
            kinds = ("EXCLUSIVE_THING", "NON_EXCLUSIVE_THING")
            kind = _one_of(self.kind(parameters), kinds, f"Resources.{self.logical}.ThingPrincipalType")
        value = self.value(parameters)
        return WantedCertificate(self.logical, self.source, value, status, kind == "EXCLUSIVE_THING", self.override)


@dataclass(frozen=True)
class _Policy:
    logical: str
    name: Text | None
    document: Text | None

    def evaluate(self, parameters: Mapping[str, str]) -> WantedPolicy:
        name = None if self.name is None else self.name(parameters)
        return WantedPolicy(self.logical, name, None if self.document is None else self.document(parameters))


@dataclass(frozen=True)
class Template:
    """A valid template. `parameters`: declared names, with their defaults or None."""

    parameters: Mapping[str, str | None]
    thing: _Thing | None
    certificate: _Certificate | None
    policies: list[_Policy]
    device_configuration: Mapping[str, Text]

    def evaluate(self, parameters: Mapping[str, str]) -> Wanted:
        """parameters: unknown ones are ignored, missing ones take their default.

        Raises expressions.Unresolved naming what cannot be resolved.
        """
        values = {name: default for name, default in self.parameters.items() if default is not None}
        values.update((name, value) for name, value in parameters.items() if name in self.parameters)
        return Wanted(
            None if self.thing is None else self.thing.evaluate(values),
            None if self.certificate is None else self.certificate.evaluate(values),
            [policy.evaluate(values) for policy in self.policies],
            {name: value(values) for name, value in self.device_configuration.items()},
        )


@functools.lru_cache(maxsize=64)
def parse(body: str, fleet: bool) -> Template:
    """Read a template body.

    fleet: for provisioning by claim, which needs exactly one certificate, the one just made for the device, and its
    Status; otherwise for RegisterThing and bulk registration, where a certificate is optional.
    Raises InvalidRequestException "The template body is invalid: <member>: <problem>".
    """
    try:
        return _template(_load(body), fleet)
    except ValueError as error:
        raise invalid(f"The template body is invalid: {error}") from None


def _load(body: str) -> dict[str, Any]:
    if len(body) > BODY_CHARACTERS:
        raise Mistake(f"has {len(body)} characters, at most {BODY_CHARACTERS} are allowed")
    document = payload.parse(body, _DEPTH)
    if not isinstance(document, dict):
        raise Mistake("must be a JSON object")
    for member in document:
        if member not in ("Parameters", "Mappings", "Resources", "DeviceConfiguration"):
            raise Mistake(f"{member}: is not a member of a template")
    return document


def _template(document: dict[str, Any], fleet: bool) -> Template:
    parameters = _parameters(document.get("Parameters", {}))
    if fleet:
        parameters.setdefault(CERTIFICATE_ID, None)
    scope = Scope(frozenset(parameters), _mappings(document.get("Mappings", {})))
    resources = _object(document.get("Resources"), "Resources")
    things: list[_Thing] = []
    certificates: list[_Certificate] = []
    policies: list[_Policy] = []
    for logical, resource in resources.items():
        where = f"Resources.{logical}"
        kind, properties, overrides = _resource(resource, where)
        where += ".Properties"
        if kind == _THING:
            things.append(_thing(logical, properties, overrides, where, scope))
        elif kind == _CERTIFICATE:
            certificates.append(_certificate(logical, properties, overrides, where, scope, fleet))
        else:
            policies.append(_policy(logical, properties, where, scope))
    if len(things) > 1:
        raise Mistake("Resources: at most one AWS::IoT::Thing is allowed")
    if len(certificates) > 1 or (fleet and not certificates):
        least = "exactly" if fleet else "at most"
        raise Mistake(f"Resources: {least} one AWS::IoT::Certificate is allowed, not {len(certificates)}")
    if not things and not certificates:
        raise Mistake("Resources: must have an AWS::IoT::Thing or an AWS::IoT::Certificate")
    if policies and not certificates:
        raise Mistake(f"Resources.{policies[0].logical}: a policy needs an AWS::IoT::Certificate to be attached to")
    if len(policies) > _POLICIES:
        raise Mistake(f"Resources: at most {_POLICIES} AWS::IoT::Policy are allowed, not {len(policies)}")
    configuration = {
        name: expressions.text(value, f"DeviceConfiguration.{name}", scope)
        for name, value in _object(document.get("DeviceConfiguration", {}), "DeviceConfiguration").items()
    }
    return Template(
        parameters, things[0] if things else None, certificates[0] if certificates else None, policies, configuration
    )


def _parameters(declared: Any) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name, declaration in _object(declared, "Parameters").items():
        where = f"Parameters.{name}"
        _members(_object(declaration, where), ("Type", "Default", "Description"), where)
        if declaration.get("Type") != "String":
            raise Mistake(f'{where}.Type: must be "String"')
        default = declaration.get("Default")
        if default is not None and not isinstance(default, str):
            raise Mistake(f"{where}.Default: must be a string")
        found[name] = default
    return found


def _mappings(mappings: Any) -> dict[str, dict[str, dict[str, str]]]:
    """Three levels of plain strings: functions are not allowed here."""
    for table, tops in _object(mappings, "Mappings").items():
        for top, seconds in _object(tops, f"Mappings.{table}").items():
            for second, value in _object(seconds, f"Mappings.{table}.{top}").items():
                if not isinstance(value, str):
                    raise Mistake(f"Mappings.{table}.{top}.{second}: must be a string")
    result: dict[str, dict[str, dict[str, str]]] = mappings
    return result


def _resource(resource: Any, where: str) -> tuple[str, dict[str, Any], dict[str, str]]:
    """(type, properties, override settings) with known members only."""
    _members(_object(resource, where), ("Type", "Properties", "OverrideSettings"), where)
    kind = resource.get("Type")
    if not isinstance(kind, str) or kind not in _PROPERTIES:
        raise Mistake(f"{where}.Type: must be one of {', '.join(_PROPERTIES)}")
    properties = _object(resource.get("Properties"), f"{where}.Properties")
    _members(properties, _PROPERTIES[kind], f"{where}.Properties")
    overrides = _object(resource.get("OverrideSettings", {}), f"{where}.OverrideSettings")
    known = _OVERRIDES[kind]
    _members(overrides, tuple(known), f"{where}.OverrideSettings")
    for name, value in overrides.items():
        if value not in known[name]:
            raise Mistake(f"{where}.OverrideSettings.{name}: must be one of {', '.join(known[name])}")
    return kind, properties, overrides


def _thing(logical: str, properties: dict[str, Any], overrides: dict[str, str], where: str, scope: Scope) -> _Thing:
    if "ThingName" not in properties:
        raise Mistake(f"{where}.ThingName: is required")
    attributes = None
    if "AttributePayload" in properties:
        given = _object(properties["AttributePayload"], f"{where}.AttributePayload")
        attributes = {
            name: expressions.text(value, f"{where}.AttributePayload.{name}", scope) for name, value in given.items()
        }
    groups = None
    if "ThingGroups" in properties:
        groups = expressions.texts(properties["ThingGroups"], f"{where}.ThingGroups", scope)
    return _Thing(
        logical,
        expressions.text(properties["ThingName"], f"{where}.ThingName", scope),
        _optional(properties, "ThingTypeName", where, scope),
        attributes,
        groups,
        overrides,
    )


def _certificate(
    logical: str, properties: dict[str, Any], overrides: dict[str, str], where: str, scope: Scope, fleet: bool
) -> _Certificate:
    sources = [source for source in _SOURCES if source in properties]
    if len(sources) != 1:
        raise Mistake(f"{where}: needs one of {', '.join(_SOURCES)}")
    if fleet:
        if properties.get("CertificateId") != {"Ref": CERTIFICATE_ID}:
            raise Mistake(f'{where}.CertificateId: must be {{"Ref":"{CERTIFICATE_ID}"}}')
        if str(properties.get("Status")).upper() not in ("ACTIVE", "INACTIVE"):
            raise Mistake(f"{where}.Status: must be Active or Inactive")
    return _Certificate(
        logical,
        sources[0],
        expressions.text(properties[sources[0]], f"{where}.{sources[0]}", scope),
        _optional(properties, "Status", where, scope),
        _optional(properties, "ThingPrincipalType", where, scope),
        overrides.get("Status", "FAIL"),
    )


def _policy(logical: str, properties: dict[str, Any], where: str, scope: Scope) -> _Policy:
    if len(properties) != 1:
        raise Mistake(f"{where}: needs either PolicyName or PolicyDocument")
    inside = Scope(scope.parameters, scope.mappings, scope.used, join=False)
    if "PolicyName" in properties:
        return _Policy(logical, expressions.text(properties["PolicyName"], f"{where}.PolicyName", inside), None)
    document = properties["PolicyDocument"]
    where += ".PolicyDocument"
    if isinstance(document, dict) and "Statement" in document:
        document = json.dumps(document)
    if isinstance(document, str):
        try:
            policy_language.parse(document)
        except ApiError as error:
            raise Mistake(f"{where}: {error.message}") from None
    return _Policy(logical, None, expressions.text(document, where, inside))


def _optional(properties: dict[str, Any], name: str, where: str, scope: Scope) -> Text | None:
    return expressions.text(properties[name], f"{where}.{name}", scope) if name in properties else None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Mistake(f"{where}: must be an object")
    return value


def _members(value: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in value:
        if name not in known:
            allowed = f"only {', '.join(known)}" if known else "none"
            raise Mistake(f"{where}.{name}: is not supported here ({allowed})")


def _one_of(value: str, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise expressions.Unresolved(f"{where}: must be one of {', '.join(allowed)}, not '{value[:80]}'")
    return value
