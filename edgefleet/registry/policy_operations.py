# SPDX-License-Identifier: Apache-2.0
"""HTTP operations on policies, and the two that explain decisions (section 7.8)."""

from __future__ import annotations

from typing import Any

from edgefleet import names, paging
from edgefleet.errors import invalid
from edgefleet.registry import authorizer, certificates, listing, policies, things
from edgefleet.registry.listing import with_token
from edgefleet.registry.policies import Applied, Target
from edgefleet.registry.policy_language import Bound, Decision
from edgefleet.store import Tx

# TestAuthorization's actionType -> (policy action, kind of resource).
_ACTIONS = {
    "PUBLISH": "iot:Publish",
    "SUBSCRIBE": "iot:Subscribe",
    "RECEIVE": "iot:Receive",
    "CONNECT": "iot:Connect",
}


class PolicyOperations:
    def create_policy(self, tx: Tx, *, policyName: str, policyDocument: str) -> dict[str, Any]:
        made = policies.create(tx, policyName, policyDocument)
        return {
            **_named(policyName),
            "policyDocument": made["policyDocument"],
            "policyVersionId": made["defaultVersionId"],
        }

    def get_policy(self, tx: Tx, *, policyName: str) -> dict[str, Any]:
        return {**policies.require(tx, policyName), **_named(policyName)}

    def delete_policy(self, tx: Tx, *, policyName: str) -> dict[str, Any]:
        policies.delete(tx, policyName)
        return {}

    def list_policies(self, tx: Tx, *, marker: str | None = None, pageSize: int | None = None) -> dict[str, Any]:
        rows, token = listing.page(
            tx, "SELECT name FROM policies WHERE 1", [], "name", marker, pageSize, size_name="pageSize"
        )
        return with_token({"policies": [_named(row["name"]) for row in rows]}, token, "nextMarker")

    def create_policy_version(
        self, tx: Tx, *, policyName: str, policyDocument: str, setAsDefault: bool = False
    ) -> dict[str, Any]:
        made = policies.create_version(tx, policyName, policyDocument, setAsDefault)
        return {
            "policyArn": names.arn(f"policy/{policyName}"),
            "policyDocument": made["policyDocument"],
            "policyVersionId": made["policyVersionId"],
            "isDefaultVersion": made["isDefaultVersion"],
        }

    def get_policy_version(self, tx: Tx, *, policyName: str, policyVersionId: str) -> dict[str, Any]:
        found = policies.version(tx, policyName, policyVersionId)
        generation = policies.require(tx, policyName)["generationId"]
        return {
            **_named(policyName),
            **found,
            "lastModifiedDate": found["creationDate"],
            "generationId": generation,
        }

    def list_policy_versions(self, tx: Tx, *, policyName: str) -> dict[str, Any]:
        policies.require(tx, policyName)
        return {
            "policyVersions": [
                {
                    "versionId": one["policyVersionId"],
                    "isDefaultVersion": one["isDefaultVersion"],
                    "createDate": one["creationDate"],
                }
                for one in policies.versions(tx, policyName)
            ]
        }

    def delete_policy_version(self, tx: Tx, *, policyName: str, policyVersionId: str) -> dict[str, Any]:
        policies.delete_version(tx, policyName, policyVersionId)
        return {}

    def set_default_policy_version(self, tx: Tx, *, policyName: str, policyVersionId: str) -> dict[str, Any]:
        policies.set_default_version(tx, policyName, policyVersionId)
        return {}

    def attach_policy(self, tx: Tx, *, policyName: str, target: str) -> dict[str, Any]:
        policies.attach(tx, policyName, policies.parse_target(target))
        return {}

    def detach_policy(self, tx: Tx, *, policyName: str, target: str) -> dict[str, Any]:
        policies.detach(tx, policyName, policies.parse_target(target))
        return {}

    def attach_principal_policy(self, tx: Tx, *, policyName: str, principal: str) -> dict[str, Any]:
        policies.attach(tx, policyName, Target("cert", names.resource(principal, "cert")))
        return {}

    def detach_principal_policy(self, tx: Tx, *, policyName: str, principal: str) -> dict[str, Any]:
        policies.detach(tx, policyName, Target("cert", names.resource(principal, "cert")))
        return {}

    def list_attached_policies(
        self,
        tx: Tx,
        *,
        target: str,
        recursive: bool = False,
        marker: str | None = None,
        pageSize: int | None = None,
    ) -> dict[str, Any]:
        """recursive: also those of the groups above a group."""
        parsed = policies.parse_target(target)
        policies.require_target(tx, parsed)
        found = policies.attached_recursively(tx, parsed) if recursive else policies.attached(tx, parsed)
        page, token = _page(found, marker, pageSize)
        return with_token({"policies": [_named(name) for name in page]}, token, "nextMarker")

    def list_principal_policies(
        self,
        tx: Tx,
        *,
        principal: str,
        marker: str | None = None,
        pageSize: int | None = None,
    ) -> dict[str, Any]:
        target = names.arn(f"cert/{names.resource(principal, 'cert')}")
        return self.list_attached_policies(tx, target=target, marker=marker, pageSize=pageSize)

    def list_targets_for_policy(
        self, tx: Tx, *, policyName: str, marker: str | None = None, pageSize: int | None = None
    ) -> dict[str, Any]:
        policies.require(tx, policyName)
        page, token = _page([target.arn for target in policies.targets(tx, policyName)], marker, pageSize)
        return with_token({"targets": page}, token, "nextMarker")

    def list_policy_principals(
        self,
        tx: Tx,
        *,
        policyName: str,
        marker: str | None = None,
        pageSize: int | None = None,
    ) -> dict[str, Any]:
        policies.require(tx, policyName)
        found = [target.arn for target in policies.targets(tx, policyName) if target.kind == "cert"]
        page, token = _page(found, marker, pageSize)
        return with_token({"principals": page}, token, "nextMarker")

    def get_effective_policies(
        self, tx: Tx, *, principal: str | None = None, thingName: str | None = None
    ) -> dict[str, Any]:
        """The policies of a certificate, and of the groups above a thing."""
        if principal is None and thingName is None:
            raise invalid("principal or thingName is required")
        if thingName is not None:
            things.require(tx, thingName)
        applied = policies.applied(tx, _certificate_id(tx, principal), thingName)
        return {"effectivePolicies": [{**_named(policy.name), "policyDocument": policy.document} for policy in applied]}

    def test_authorization(
        self,
        tx: Tx,
        *,
        authInfos: list[dict[str, Any]],
        principal: str | None = None,
        clientId: str | None = None,
        policyNamesToAdd: list[str] | None = None,
        policyNamesToSkip: list[str] | None = None,
    ) -> dict[str, Any]:
        """What a connection of this certificate and client id would be told, without one."""
        if principal is None:
            raise invalid("principal is required")
        if not 1 <= len(authInfos) <= 10:
            raise invalid(f"authInfos: 1 to 10 entries are allowed, not {len(authInfos)}")
        certificate_id = _certificate_id(tx, principal)
        assert certificate_id is not None
        thing_name = authorizer.associated_thing(tx, certificate_id, clientId or "")
        applied = [
            policy
            for policy in policies.applied(tx, certificate_id, thing_name)
            if policy.name not in (policyNamesToSkip or [])
        ]
        for name in policyNamesToAdd or []:
            found = policies.require(tx, name)
            applied.append(Applied(name, int(found["defaultVersionId"]), found["policyDocument"]))
        context = authorizer.connection_context(
            clientId,
            None,
            certificate_id,
            None if thing_name is None else things.get(tx, thing_name),
            [],
            certificates.require(tx, certificate_id)["certificatePem"],
        )
        bound = authorizer.bind(applied, context)
        return {
            "authResults": [_auth_result(bound, info, resource) for info in authInfos for resource in info["resources"]]
        }


def _auth_result(bound: Bound, info: dict[str, Any], resource: str) -> dict[str, Any]:
    action = _ACTIONS.get(info.get("actionType", ""))
    if action is None:
        raise invalid(f"authInfos: actionType must be one of {', '.join(_ACTIONS)}")
    decision, allowing, denying = bound.explain(action, resource)
    explicit = {"policies": [_named(name) for name in denying]}
    implicit: dict[str, Any] = {"policies": []}
    return {
        "authInfo": {"actionType": info["actionType"], "resources": [resource]},
        "allowed": {"policies": [_named(name) for name in allowing]},
        "denied": {"implicitDeny": implicit, "explicitDeny": explicit} if decision is not Decision.ALLOWED else {},
        "authDecision": decision.value,
        "missingContextValues": [],
    }


def _named(name: str) -> dict[str, Any]:
    return {"policyName": name, "policyArn": names.arn(f"policy/{name}")}


def _certificate_id(tx: Tx, principal: str | None) -> str | None:
    if principal is None:
        return None
    certificate_id = names.resource(principal, "cert")
    certificates.require(tx, certificate_id)
    return certificate_id


def _page(found: list[str], marker: str | None, size: int | None) -> tuple[list[str], str | None]:
    limit = paging.limit(size, listing.MOST, "pageSize")
    after = paging.decode(marker, str)
    rest = sorted(one for one in found if after is None or one > after[0])
    return rest[:limit], paging.encode(rest[limit - 1]) if len(rest) > limit else None
