# SPDX-License-Identifier: Apache-2.0
"""The site as a whole: what it makes at its first start, what a restart keeps, how it starts and stops."""

from __future__ import annotations

import configparser
import inspect
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from edgefleet.errors import InputError
from edgefleet.messages import Request
from edgefleet.pki import Authority
from edgefleet.site import SiteConfig
from tests.fleet.api_world import MODEL
from tests.fleet.site_world import SiteWorld

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteWorld]:
    world = SiteWorld(tmp_path_factory.mktemp("site") / "data")
    yield world
    world.close()


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


# First start.


def test_the_generated_profile_reaches_the_site_with_the_aws_cli(world: SiteWorld) -> None:
    world.client("iot").create_thing(thingName="cli-thing")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_CONFIG_FILE": world.ready.aws_config,
        "AWS_SHARED_CREDENTIALS_FILE": world.ready.aws_credentials,
    }
    if not (BIN / "aws").exists():
        pytest.skip("the AWS CLI is not installed")
    shown = subprocess.run(
        [sys.executable, str(BIN / "aws"), "--profile", world.ready.profile, "iot", "list-things", "--output", "json"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "cli-thing" in [thing["thingName"] for thing in json.loads(shown.stdout)["things"]]


def test_secrets_are_readable_by_the_operator_only(world: SiteWorld) -> None:
    assert mode(world.data) == 0o700
    for path in (world.ready.claim_key, world.ready.aws_credentials, world.data / "server" / "key.pem"):
        assert mode(path) == 0o600, path


def test_the_default_policies_are_least_privilege(world: SiteWorld) -> None:
    iot = world.client("iot")
    device = json.loads(iot.get_policy(policyName="edgeagent-device")["policyDocument"])
    own = "${iot:Connection.Thing.ThingName}"
    for statement in device["Statement"]:
        assert statement["Effect"] == "Allow"
        assert all(own in resource for resource in statement["Resource"]), statement
    claim = json.loads(iot.get_policy(policyName="edgeagent-claim")["policyDocument"])
    topics = {resource.split(":", 5)[5] for s in claim["Statement"] for resource in s["Resource"]}
    assert topics == {
        "client/*",
        "topic/$aws/certificates/create/*",
        "topic/$aws/certificates/create-from-csr/*",
        "topic/$aws/provisioning-templates/edgeagent/provision/*",
        "topicfilter/$aws/certificates/create/*",
        "topicfilter/$aws/certificates/create-from-csr/*",
        "topicfilter/$aws/provisioning-templates/edgeagent/provision/*",
    }


def test_the_claim_certificate_is_registered_active_and_has_only_the_claim_policy(world: SiteWorld) -> None:
    from edgefleet.pki import certificate_id

    iot = world.client("iot")
    described = iot.describe_certificate(certificateId=certificate_id(Path(world.ready.claim_certificate).read_text()))
    arn = described["certificateDescription"]["certificateArn"]
    assert described["certificateDescription"]["status"] == "ACTIVE"
    assert [policy["policyName"] for policy in iot.list_attached_policies(target=arn)["policies"]] == [
        "edgeagent-claim"
    ]


def test_the_default_template_is_enabled(world: SiteWorld) -> None:
    described = world.client("iot").describe_provisioning_template(templateName=world.ready.template)
    assert described["enabled"]
    assert "SerialNumber" in json.loads(described["templateBody"])["Parameters"]


def test_both_servers_present_the_sites_certificate_for_every_host(world: SiteWorld) -> None:
    context = ssl.create_default_context(cafile=world.ready.ca)
    port = int(world.ready.api.rsplit(":", 1)[1])
    for name in ("127.0.0.1", "localhost"):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            context.wrap_socket(raw, server_hostname=name).close()


# Operations.


def test_every_method_of_an_operations_class_is_an_operation_with_its_members(world: SiteWorld) -> None:
    """No invented operations and no invented members: what boto3 cannot send would never be reached."""
    checked = 0
    for service, implementations in world.site.operations.items():
        for implementation in implementations:
            for name in dir(implementation):
                function = getattr(implementation, name)
                if name.startswith("_") or not inspect.ismethod(function):
                    continue
                assert name in MODEL.operations[service], f"{type(implementation).__name__}.{name}"
                shape = MODEL.operations[service][name].model.input_shape
                parameters = inspect.signature(function).parameters
                assert next(iter(parameters)) == "tx", name
                members = set(parameters) - {"tx"}
                assert members <= set(shape.members if shape else ()), f"{name}: {members - set(shape.members)}"
                needed = set(shape.required_members if shape else ())
                assert needed <= members, f"{name} lacks {needed - members}"
                checked += 1
    assert checked > 60


def test_describe_endpoint_tells_where_devices_connect(world: SiteWorld) -> None:
    address = world.client("iot").describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    assert address == f"127.0.0.1:{world.ready.mqtt_port}"


def test_a_shadow_and_a_job_go_through_their_services(world: SiteWorld) -> None:
    iot, data = world.client("iot"), world.client("iot-data")
    arn = iot.create_thing(thingName="worker")["thingArn"]
    data.update_thing_shadow(thingName="worker", payload=b'{"state":{"reported":{"firmware":"1.2.0"}}}')
    assert [t["thingName"] for t in iot.search_index(queryString="shadow.reported.firmware:1.*")["things"]] == [
        "worker"
    ]
    iot.create_job(jobId="j", targets=[arn], document='{"operation":"reboot"}')
    pending = world.client("iot-jobs-data").get_pending_job_executions(thingName="worker")
    assert [job["jobId"] for job in pending["queuedJobs"]] == ["j"]
    assert iot.describe_job_execution(jobId="j", thingName="worker")["execution"]["status"] == "QUEUED"


def test_a_typed_exception_reaches_the_caller(world: SiteWorld) -> None:
    iot = world.client("iot")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_thing(thingName="nobody")
    iot.create_thing(thingName="twice", attributePayload={"attributes": {"a": "1"}})
    with pytest.raises(iot.exceptions.ResourceAlreadyExistsException) as error:
        iot.create_thing(thingName="twice", attributePayload={"attributes": {"a": "2"}})
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409


def test_an_unknown_reserved_topic_is_logged_and_answered_by_nothing(
    world: SiteWorld, caplog: pytest.LogCaptureFixture
) -> None:
    request = Request("$aws/things/a/defender/metrics/json", b"{}", "a", "c" * 64)
    with caplog.at_level("INFO"):
        assert world.commit(lambda tx: (world.site.control.handle(tx, request), list(tx.outgoing))[1]) == []
    assert "defender" in caplog.text


# Restart.


def test_a_restart_changes_nothing_and_brings_back_nothing(tmp_path: Path) -> None:
    first = SiteWorld(tmp_path / "data")
    first.client("iot").create_thing(thingName="kept")
    first.client("iot").delete_provisioning_template(templateName="edgeagent")
    claim = Path(first.ready.claim_certificate).read_text()
    keys = Path(first.ready.aws_credentials).read_text()
    server = (tmp_path / "data" / "server" / "certificate.pem").read_text()
    first.close()
    again = SiteWorld(tmp_path / "data")
    try:
        assert again.client("iot").describe_thing(thingName="kept")["thingName"] == "kept"
        assert Path(again.ready.claim_certificate).read_text() == claim
        assert Path(again.ready.aws_credentials).read_text() == keys
        assert (tmp_path / "data" / "server" / "certificate.pem").read_text() == server
        with pytest.raises(ClientError):  # the operator took it away
            again.client("iot").describe_provisioning_template(templateName="edgeagent")
    finally:
        again.close()


def test_another_host_gets_another_server_certificate_from_the_same_ca(tmp_path: Path) -> None:
    first = SiteWorld(tmp_path / "data")
    ca = Path(first.ready.ca).read_text()
    first.close()
    again = SiteWorld(tmp_path / "data", hosts=("site.example", "192.0.2.7"))
    try:
        assert Path(again.ready.ca).read_text() == ca
        assert again.ready.endpoint == "site.example"
        context = ssl.create_default_context(cafile=again.ready.ca)
        for name in ("site.example", "192.0.2.7", "localhost"):
            with socket.create_connection(("127.0.0.1", int(again.ready.api.rsplit(":", 1)[1])), timeout=5) as raw:
                context.wrap_socket(raw, server_hostname=name).close()
    finally:
        again.close()


def test_a_further_key_in_the_credentials_file_is_let_in(tmp_path: Path) -> None:
    first = SiteWorld(tmp_path / "data")
    first.close()
    with Path(first.ready.aws_credentials).open("a") as file:
        file.write("\n[alice]\naws_access_key_id = ALICEALICEALICEALICE\naws_secret_access_key = s3cret\n")
    again = SiteWorld(tmp_path / "data")
    try:
        import boto3

        client: Any = boto3.Session("ALICEALICEALICEALICE", "s3cret", region_name="local-1").client(
            "iot", endpoint_url=again.ready.api, verify=again.ready.ca
        )
        assert client.list_things()["things"] == []
    finally:
        again.close()


# What is refused at the start.


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"mqtt_port": 70000}, "mqtt_port"),
        ({"api_port": -1}, "api_port"),
        ({"mqtt_port": 8443}, "api_port"),
        ({"hosts": ()}, "hosts"),
        ({"hosts": ("bad host",)}, "bad host"),
        ({"hosts": ("a\nb",)}, "host"),
        ({"bind": ""}, "host"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, members: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        SiteConfig(tmp_path, **members)


def test_a_second_site_on_the_same_folder_is_refused(world: SiteWorld) -> None:
    with pytest.raises(InputError, match="in use by another edgefleet process"):
        SiteWorld(world.data)


def test_a_port_that_is_taken_is_named(tmp_path: Path, world: SiteWorld) -> None:
    taken = int(world.ready.api.rsplit(":", 1)[1])
    command = [
        str(BIN / "edgefleet"),
        "up",
        "--data",
        str(tmp_path / "d"),
        "--mqtt-port",
        "0",
        "--api-port",
        str(taken),
    ]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert refused.stderr.strip().startswith(f"edgefleet: cannot listen on 127.0.0.1 port {taken}:")
    assert len(refused.stderr.strip().splitlines()) == 1


def test_damaged_credentials_are_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "aws").mkdir(parents=True)
    (tmp_path / "data" / "aws" / "credentials").write_text("[edgefleet]\nnonsense = 1\n")
    with pytest.raises(InputError, match="credentials"):
        SiteWorld(tmp_path / "data")


def test_a_ca_without_its_key_is_refused(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path / "data" / "pki")
    (tmp_path / "data" / "pki" / "ca.key").unlink()
    with pytest.raises(InputError, match=r"ca\.key"):
        SiteWorld(tmp_path / "data")


# As a process.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_says_when_it_is_ready_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    command = [
        str(BIN / "edgefleet"),
        "up",
        "--data",
        str(tmp_path / "d"),
        "--mqtt-port",
        "0",
        "--api-port",
        "0",
        "--json-ready",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert {"endpoint", "mqtt_port", "api", "ca", "template", "claim_certificate", "claim_key"} <= set(ready)
        profile = configparser.ConfigParser()
        profile.read(ready["aws_config"])
        assert profile["profile edgefleet"]["endpoint_url"] == ready["api"]
        process.send_signal(number)
        rest, complaints = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, rest, complaints) == (0, "", "")
