# SPDX-License-Identifier: Apache-2.0
"""The registry's HTTP operations: shapes, paging and error codes as AWS's model has them."""

from __future__ import annotations

import inspect
import json

import botocore.session
import pytest
from botocore import xform_name
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_pem_x509_certificate

from edgefleet import names
from edgefleet.errors import ApiError
from edgefleet.messages import Disconnect
from edgefleet.pki import Authority, certificate_id
from edgefleet.registry.operations import RegistryOperations
from edgefleet.store import Store
from tests.fleet.modelled import Api

POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "iot:Publish",
                "Resource": names.arn("topic/${iot:Connection.Thing.ThingName}"),
            },
            {"Effect": "Deny", "Action": "iot:*", "Resource": names.arn("topic/secret")},
        ],
    }
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def api(authority: Authority) -> Api:
    return Api(Store(":memory:"), RegistryOperations(authority, "fleet.example:8883"))


def code(api: Api, operation: str, **members: object) -> str:
    with pytest.raises(ApiError) as caught:
        api(operation, **members)
    return caught.value.code


def test_every_method_and_member_is_in_the_model() -> None:
    model = botocore.session.get_session().get_service_model("iot")
    operations = {xform_name(name): model.operation_model(name) for name in model.operation_names}
    for name, function in inspect.getmembers(RegistryOperations, inspect.isfunction):
        if not name.startswith("_"):
            members = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
            known = operations[name].input_shape.members if operations[name].input_shape else {}
            assert set(members) <= set(known), name


def test_a_thing_from_birth_to_death(api: Api) -> None:
    made = api("CreateThing", thingName="pump-1", attributePayload={"attributes": {"site": "north"}})
    assert made["thingArn"] == names.arn("thing/pump-1")
    found = api("DescribeThing", thingName="pump-1")
    assert found == {
        "defaultClientId": "pump-1",
        "thingName": "pump-1",
        "thingId": made["thingId"],
        "thingArn": made["thingArn"],
        "attributes": {"site": "north"},
        "version": 1,
    }
    api(
        "UpdateThing", thingName="pump-1", attributePayload={"attributes": {"a": "1"}, "merge": True}, expectedVersion=1
    )
    assert api("DescribeThing", thingName="pump-1")["attributes"] == {"site": "north", "a": "1"}
    assert code(api, "UpdateThing", thingName="pump-1", expectedVersion=1) == "VersionConflictException"
    assert code(api, "CreateThing", thingName="pump-1") == "ResourceAlreadyExistsException"
    api("DeleteThing", thingName="pump-1")
    assert code(api, "DescribeThing", thingName="pump-1") == "ResourceNotFoundException"


def test_lists_are_paged_without_gaps(api: Api) -> None:
    for n in range(7):
        api("CreateThing", thingName=f"pump-{n}")
    seen, token = [], None
    while True:
        page = api("ListThings", maxResults=3, **({"nextToken": token} if token else {}))
        seen += [thing["thingName"] for thing in page["things"]]
        token = page.get("nextToken")
        if token is None:
            break
        api("DeleteThing", thingName=seen[-1])  # the row the token was made from
    assert seen == [f"pump-{n}" for n in range(7)]


@pytest.mark.parametrize("token", ["rubbish", "", "bnVsbA"])
def test_a_foreign_token_is_refused(api: Api, token: str) -> None:
    assert code(api, "ListThings", nextToken=token) == "InvalidRequestException"


def test_a_thing_type(api: Api) -> None:
    api("CreateThingType", thingTypeName="pump", thingTypeProperties={"thingTypeDescription": "pumps"})
    api("CreateThing", thingName="pump-1", thingTypeName="pump")
    assert api("DescribeThing", thingName="pump-1")["thingTypeName"] == "pump"
    api("DeprecateThingType", thingTypeName="pump")
    assert api("DescribeThingType", thingTypeName="pump")["thingTypeMetadata"]["deprecated"] is True
    assert api("ListThingTypes")["thingTypes"][0]["thingTypeName"] == "pump"
    assert code(api, "CreateThing", thingName="pump-2", thingTypeName="pump") == "InvalidRequestException"
    assert code(api, "DeleteThingType", thingTypeName="pump") == "InvalidRequestException"


def test_groups_and_their_members(api: Api) -> None:
    api("CreateThingGroup", thingGroupName="world", thingGroupProperties={"thingGroupDescription": "all"})
    api("CreateThingGroup", thingGroupName="europe", parentGroupName="world")
    api("CreateThingGroup", thingGroupName="asia", parentGroupName="world")
    api("CreateThing", thingName="pump-1")
    api("AddThingToThingGroup", thingGroupArn=names.arn("thinggroup/europe"), thingName="pump-1")
    assert api("ListThingsInThingGroup", thingGroupName="world")["things"] == []
    assert api("ListThingsInThingGroup", thingGroupName="world", recursive=True)["things"] == ["pump-1"]
    api("UpdateThingGroupsForThing", thingName="pump-1", thingGroupsToAdd=["asia"], thingGroupsToRemove=["europe"])
    assert api("ListThingGroupsForThing", thingName="pump-1")["thingGroups"] == [
        {"groupName": "asia", "groupArn": names.arn("thinggroup/asia")}
    ]
    metadata = api("DescribeThingGroup", thingGroupName="europe")["thingGroupMetadata"]
    assert metadata["parentGroupName"] == "world"
    assert [group["groupName"] for group in metadata["rootToParentThingGroups"]] == ["world"]
    listed = api("ListThingGroups", parentGroup="world", namePrefixFilter="e")["thingGroups"]
    assert [group["groupName"] for group in listed] == ["europe"]
    assert api("UpdateThingGroup", thingGroupName="asia", thingGroupProperties={})["version"] == 2
    api("RemoveThingFromThingGroup", thingGroupName="asia", thingArn=names.arn("thing/pump-1"))
    assert code(api, "DeleteThingGroup", thingGroupName="world") == "InvalidRequestException"
    assert code(api, "AddThingToThingGroup", thingName="pump-1") == "InvalidRequestException"
    different = {"thingGroupName": "asia", "thingGroupArn": names.arn("thinggroup/europe"), "thingName": "pump-1"}
    assert code(api, "AddThingToThingGroup", **different) == "InvalidRequestException"


def test_a_certificate_from_birth_to_death(api: Api) -> None:
    made = api("CreateKeysAndCertificate", setAsActive=True)
    assert made["certificateId"] == certificate_id(made["certificatePem"])
    key = serialization.load_pem_private_key(made["keyPair"]["PrivateKey"].encode(), None)
    assert load_pem_x509_certificate(made["certificatePem"].encode()).public_key() == key.public_key()
    assert "BEGIN PUBLIC KEY" in made["keyPair"]["PublicKey"]
    found = api("DescribeCertificate", certificateId=made["certificateId"])["certificateDescription"]
    assert (found["status"], found["ownedBy"], found["certificateMode"]) == ("ACTIVE", names.ACCOUNT, "DEFAULT")
    assert code(api, "DeleteCertificate", certificateId=made["certificateId"]) == "CertificateStateException"
    api("UpdateCertificate", certificateId=made["certificateId"], newStatus="REVOKED")
    assert api.sent == [Disconnect("FORBIDDEN_ACCESS", made["certificateId"])]
    api("DeleteCertificate", certificateId=made["certificateId"])
    assert code(api, "DescribeCertificate", certificateId=made["certificateId"]) == "ResourceNotFoundException"


def test_certificates_are_listed_newest_first(api: Api) -> None:
    made = [api("CreateKeysAndCertificate")["certificateId"] for _ in range(3)]
    first = api("ListCertificates", pageSize=2)
    second = api("ListCertificates", pageSize=2, marker=first["nextMarker"])
    assert [one["certificateId"] for one in first["certificates"] + second["certificates"]] == made[::-1]
    assert "nextMarker" not in second
    assert [one["certificateId"] for one in api("ListCertificates", ascendingOrder=True)["certificates"]] == made


def test_a_bad_csr_is_an_invalid_request(api: Api) -> None:
    assert code(api, "CreateCertificateFromCsr", certificateSigningRequest="x") == "InvalidRequestException"


def test_things_and_principals(api: Api) -> None:
    certificate = api("CreateKeysAndCertificate", setAsActive=True)
    arn = certificate["certificateArn"]
    api("CreateThing", thingName="pump-1")
    api("AttachThingPrincipal", thingName="pump-1", principal=arn, thingPrincipalType="EXCLUSIVE_THING")
    assert api("ListThingPrincipals", thingName="pump-1")["principals"] == [arn]
    assert api("ListPrincipalThings", principal=arn)["things"] == ["pump-1"]
    both = {"thingPrincipalType": "EXCLUSIVE_THING"}
    assert api("ListThingPrincipalsV2", thingName="pump-1")["thingPrincipalObjects"] == [{"principal": arn, **both}]
    assert api("ListPrincipalThingsV2", principal=arn)["principalThingObjects"] == [{"thingName": "pump-1", **both}]
    assert api("ListPrincipalThingsV2", principal=arn, thingPrincipalType="NON_EXCLUSIVE_THING") == {
        "principalThingObjects": []
    }
    assert code(api, "DeleteThing", thingName="pump-1") == "InvalidRequestException"
    api("DetachThingPrincipal", thingName="pump-1", principal=arn)
    api("DeleteThing", thingName="pump-1")
    assert code(api, "ListPrincipalThings", principal=names.arn("cert/" + "0" * 64)) == "ResourceNotFoundException"


def test_policies_and_versions(api: Api) -> None:
    made = api("CreatePolicy", policyName="p", policyDocument=POLICY)
    assert (made["policyVersionId"], made["policyArn"]) == ("1", names.arn("policy/p"))
    assert api("GetPolicy", policyName="p")["policyDocument"] == POLICY
    assert (
        api("CreatePolicyVersion", policyName="p", policyDocument=POLICY, setAsDefault=True)["policyVersionId"] == "2"
    )
    versions = api("ListPolicyVersions", policyName="p")["policyVersions"]
    assert [(one["versionId"], one["isDefaultVersion"]) for one in versions] == [("2", True), ("1", False)]
    api("SetDefaultPolicyVersion", policyName="p", policyVersionId="1")
    assert api("GetPolicyVersion", policyName="p", policyVersionId="1")["isDefaultVersion"] is True
    assert code(api, "DeletePolicyVersion", policyName="p", policyVersionId="1") == "DeleteConflictException"
    api("DeletePolicyVersion", policyName="p", policyVersionId="2")
    assert api("ListPolicies")["policies"] == [{"policyName": "p", "policyArn": names.arn("policy/p")}]
    assert code(api, "CreatePolicy", policyName="p", policyDocument=POLICY) == "ResourceAlreadyExistsException"
    assert code(api, "CreatePolicy", policyName="q", policyDocument="{}") == "MalformedPolicyException"
    api("DeletePolicy", policyName="p")
    assert code(api, "GetPolicy", policyName="p") == "ResourceNotFoundException"


def test_policies_are_attached_to_certificates_and_groups(api: Api) -> None:
    arn = api("CreateKeysAndCertificate", setAsActive=True)["certificateArn"]
    api("CreateThingGroup", thingGroupName="world")
    api("CreateThingGroup", thingGroupName="europe", parentGroupName="world")
    api("CreatePolicy", policyName="p", policyDocument=POLICY)
    named = {"policyName": "p", "policyArn": names.arn("policy/p")}
    api("AttachPolicy", policyName="p", target=arn)
    api("AttachPolicy", policyName="p", target=names.arn("thinggroup/world"))
    assert api("ListAttachedPolicies", target=arn)["policies"] == [named]
    assert api("ListAttachedPolicies", target=names.arn("thinggroup/europe"))["policies"] == []
    assert api("ListAttachedPolicies", target=names.arn("thinggroup/europe"), recursive=True)["policies"] == [named]
    assert api("ListTargetsForPolicy", policyName="p")["targets"] == sorted([arn, names.arn("thinggroup/world")])
    assert api("ListPrincipalPolicies", principal=arn)["policies"] == [named]
    assert api("ListPolicyPrincipals", policyName="p")["principals"] == [arn]
    assert code(api, "DeletePolicy", policyName="p") == "DeleteConflictException"
    api("DetachPolicy", policyName="p", target=arn)
    api("DetachPolicy", policyName="p", target=names.arn("thinggroup/world"))
    api("AttachPrincipalPolicy", policyName="p", principal=arn)
    api("DetachPrincipalPolicy", policyName="p", principal=arn)
    api("DeletePolicy", policyName="p")


def test_decisions_are_explained(api: Api) -> None:
    arn = api("CreateKeysAndCertificate", setAsActive=True)["certificateArn"]
    api("CreateThing", thingName="pump-1")
    api("AttachThingPrincipal", thingName="pump-1", principal=arn)
    api("CreatePolicy", policyName="p", policyDocument=POLICY)
    api("AttachPolicy", policyName="p", target=arn)
    topics = [names.arn(f"topic/{topic}") for topic in ("pump-1", "secret", "other")]

    def decisions(**members: object) -> list[str]:
        infos = [{"actionType": "PUBLISH", "resources": topics}]
        answer = api("TestAuthorization", principal=arn, authInfos=infos, **members)
        return [one["authDecision"] for one in answer["authResults"]]

    assert decisions(clientId="pump-1") == ["ALLOWED", "EXPLICIT_DENY", "IMPLICIT_DENY"]
    assert decisions(clientId="pump-2") == ["IMPLICIT_DENY", "EXPLICIT_DENY", "IMPLICIT_DENY"]
    assert decisions(clientId="pump-1", policyNamesToSkip=["p"]) == ["IMPLICIT_DENY"] * 3
    effective = api("GetEffectivePolicies", principal=arn, thingName="pump-1")["effectivePolicies"]
    assert [one["policyName"] for one in effective] == ["p"]


def test_the_endpoint_is_the_configured_one(api: Api) -> None:
    assert api("DescribeEndpoint", endpointType="iot:Data-ATS") == {"endpointAddress": "fleet.example:8883"}
    assert code(api, "DescribeEndpoint", endpointType="iot:Nonsense") == "InvalidRequestException"
