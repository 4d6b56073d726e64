# SPDX-License-Identifier: Apache-2.0
"""HTTP operations of provisioning, both sides of each call held against AWS's model."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from edgefleet import names
from edgefleet.artifacts.objects import Objects
from edgefleet.errors import ApiError
from edgefleet.pki import Authority
from edgefleet.provisioning.bulk import BulkTasks
from edgefleet.provisioning.operations import ProvisioningOperations
from edgefleet.registry.operations import RegistryOperations
from edgefleet.store import Store
from tests.fleet.modelled import Api

ROLE = "arn:aws:iam::000000000000:role/site"
FLEET = json.dumps(
    {
        "Parameters": {"Serial": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Serial"}}},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
            },
        },
    }
)
THING = json.dumps(
    {
        "Parameters": {"Serial": {"Type": "String"}, "Site": {"Type": "String", "Default": "north"}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {"ThingName": {"Ref": "Serial"}, "AttributePayload": {"site": {"Ref": "Site"}}},
            }
        },
    }
)


class World:
    def __init__(self, folder: Path) -> None:
        authority = Authority.load_or_create(folder / "ca")
        self.objects = Objects(folder / "objects")
        self.tasks = BulkTasks(self.objects, authority, lambda bucket, key: f"https://site/{bucket}/{key}")
        store = Store(":memory:")
        self.api = Api(store, ProvisioningOperations(authority, self.tasks), RegistryOperations(authority))

    def code(self, operation: str, **members: Any) -> str:
        with pytest.raises(ApiError) as caught:
            self.api(operation, **members)
        return caught.value.code


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_every_method_and_member_is_in_the_model() -> None:
    model = botocore.session.get_session().get_service_model("iot")
    operations = {xform_name(name): model.operation_model(name) for name in model.operation_names}
    for name, function in inspect.getmembers(ProvisioningOperations, inspect.isfunction):
        if not name.startswith("_"):
            members = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
            assert set(members) <= set(operations[name].input_shape.members), name


def test_a_template_from_birth_to_death(world: World) -> None:
    api = world.api
    made = api("CreateProvisioningTemplate", templateName="pumps", templateBody=FLEET, provisioningRoleArn=ROLE)
    assert made == {
        "templateArn": names.arn("provisioningtemplate/pumps"),
        "templateName": "pumps",
        "defaultVersionId": 1,
    }
    api("UpdateProvisioningTemplate", templateName="pumps", enabled=True, description="all pumps")
    found = api("DescribeProvisioningTemplate", templateName="pumps")
    assert (found["enabled"], found["description"], found["templateBody"]) == (True, "all pumps", FLEET)
    assert [one["templateName"] for one in api("ListProvisioningTemplates")["templates"]] == ["pumps"]
    again = {"templateName": "pumps", "templateBody": FLEET, "provisioningRoleArn": ROLE}
    assert world.code("CreateProvisioningTemplate", **again) == "ResourceAlreadyExistsException"
    api("DeleteProvisioningTemplate", templateName="pumps")
    assert world.code("DescribeProvisioningTemplate", templateName="pumps") == "ResourceNotFoundException"


def test_versions_of_a_template(world: World) -> None:
    api = world.api
    api("CreateProvisioningTemplate", templateName="pumps", templateBody=FLEET, provisioningRoleArn=ROLE)
    for number in range(2, 6):
        made = api("CreateProvisioningTemplateVersion", templateName="pumps", templateBody=FLEET)
        assert (made["versionId"], made["isDefaultVersion"]) == (number, False)
    sixth = {"templateName": "pumps", "templateBody": FLEET}
    assert world.code("CreateProvisioningTemplateVersion", **sixth) == "VersionsLimitExceededException"
    api("DeleteProvisioningTemplateVersion", templateName="pumps", versionId=5)
    assert api("CreateProvisioningTemplateVersion", setAsDefault=True, **sixth)["versionId"] == 6
    first = api("ListProvisioningTemplateVersions", templateName="pumps", maxResults=3)
    rest = api("ListProvisioningTemplateVersions", templateName="pumps", nextToken=first["nextToken"])
    assert [one["versionId"] for one in first["versions"] + rest["versions"]] == [6, 4, 3, 2, 1]
    assert api("DescribeProvisioningTemplateVersion", templateName="pumps", versionId=6)["isDefaultVersion"]
    default = {"templateName": "pumps", "versionId": 6}
    assert world.code("DeleteProvisioningTemplateVersion", **default) == "DeleteConflictException"
    assert (
        world.code("UpdateProvisioningTemplate", templateName="pumps", defaultVersionId=5)
        == "ResourceNotFoundException"
    )


def test_a_broken_template_is_refused(world: World) -> None:
    broken = {"templateName": "t", "templateBody": THING, "provisioningRoleArn": ROLE}
    assert world.code("CreateProvisioningTemplate", **broken) == "InvalidRequestException"


def test_jitp_templates_say_that_they_are_missing(world: World) -> None:
    jitp = {"templateName": "t", "templateBody": FLEET, "provisioningRoleArn": ROLE, "type": "JITP"}
    assert world.code("CreateProvisioningTemplate", **jitp) == "NotImplementedException"


def test_register_thing(world: World) -> None:
    made = world.api("RegisterThing", templateBody=THING, parameters={"Serial": "pump-1"})
    assert made == {"resourceArns": {"thing": names.arn("thing/pump-1")}}
    assert world.api("DescribeThing", thingName="pump-1")["attributes"] == {"site": "north"}


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, "ResourceRegistrationFailureException"),
        ({"Serial": "a b"}, "ResourceRegistrationFailureException"),
        ({"Serial": "pump-1", "Site": "south"}, "ConflictingResourceUpdateException"),
    ],
)
def test_register_thing_fails_with_the_codes_of_the_model(world: World, parameters: Any, code: str) -> None:
    world.api("RegisterThing", templateBody=THING, parameters={"Serial": "pump-1"})
    assert world.code("RegisterThing", templateBody=THING, parameters=parameters) == code


def test_a_bulk_task_through_the_api(world: World) -> None:
    world.objects.put("bulk", "in.json", b'{"Serial":"a"}\n{"Serial":"b c"}\n')
    start = {"templateBody": THING, "inputFileBucket": "bulk", "inputFileKey": "in.json", "roleArn": ROLE}
    task = world.api("StartThingRegistrationTask", **start)
    assert world.api("ListThingRegistrationTasks", status="InProgress")["taskIds"] == [task["taskId"]]
    assert world.code("StartThingRegistrationTask", **start) == "InvalidRequestException"
    with world.api.store.transaction() as tx:
        assert world.tasks.step(tx)
        assert not world.tasks.step(tx)
    found = world.api("DescribeThingRegistrationTask", **task)
    assert (found["status"], found["successCount"], found["failureCount"]) == ("Completed", 1, 1)
    report = world.api("ListThingRegistrationTaskReports", reportType="ERRORS", **task)
    assert report["resourceLinks"] == [f"https://site/registration-reports/{task['taskId']}/ERRORS-00001.json"]
    assert world.code("StopThingRegistrationTask", **task) == "InvalidRequestException"
