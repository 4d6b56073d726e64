# SPDX-License-Identifier: Apache-2.0
"""A device can do nothing outside its policy; an unknown or revoked certificate does nothing at all."""

from __future__ import annotations

import queue
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from edgefleet.pki import Authority
from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from tests.integration.peer import Credentials, Peer, register_device


@pytest.fixture(scope="module")
def devices(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Credentials]:
    folder = tmp_path_factory.mktemp("devices")
    return {name: register_device(judge, folder, name) for name in ("alpha", "beta")}


@pytest.fixture
def alpha(fleet: FleetManager, devices: dict[str, Credentials]) -> Iterator[Peer]:
    peer = Peer(fleet, "alpha", devices["alpha"])
    assert peer.connect()
    yield peer
    peer.close()


def test_publishing_on_another_things_topic_costs_the_connection_and_changes_nothing(
    alpha: Peer, fleet: FleetManager, devices: dict[str, Credentials], judge: Judge
) -> None:
    beta = Peer(fleet, "beta", devices["beta"])
    assert beta.connect()
    beta.subscribe("$aws/things/beta/shadow/update/accepted")
    alpha.publish("$aws/things/beta/shadow/update", {"state": {"reported": {"owned": True}}})
    assert alpha.closed.wait(10)
    assert judge.reported("beta") == {}
    with pytest.raises(queue.Empty):
        beta.messages.get(timeout=0.3)
    beta.close()


def test_subscribing_to_another_things_topics_costs_the_connection(alpha: Peer) -> None:
    alpha.client.subscribe("$aws/things/beta/shadow/update/accepted", qos=1)
    assert alpha.closed.wait(10)


def test_a_certificate_cannot_connect_as_another_thing(fleet: FleetManager, devices: dict[str, Credentials]) -> None:
    assert not Peer(fleet, "beta", devices["alpha"]).connect()


def test_a_certificate_of_a_foreign_ca_is_refused(fleet: FleetManager, tmp_path: Path) -> None:
    certificate, key = Authority.load_or_create(tmp_path / "foreign").issue_device(None)
    assert key is not None
    (tmp_path / "c.pem").write_text(certificate)
    (tmp_path / "k.pem").write_text(key)
    assert not Peer(fleet, "alpha", Credentials(tmp_path / "c.pem", tmp_path / "k.pem", "", "")).connect()


def test_a_certificate_of_our_ca_that_is_not_registered_is_refused(fleet: FleetManager, tmp_path: Path) -> None:
    certificate, key = Authority.load_or_create(fleet.data / "pki").issue_device(None)
    assert key is not None
    (tmp_path / "c.pem").write_text(certificate)
    (tmp_path / "k.pem").write_text(key)
    assert not Peer(fleet, "alpha", Credentials(tmp_path / "c.pem", tmp_path / "k.pem", "", "")).connect()


def test_no_certificate_at_all_is_refused(fleet: FleetManager) -> None:
    context = ssl.create_default_context(cafile=fleet.ready["ca"])
    with (
        pytest.raises(OSError),
        socket.create_connection((fleet.ready["endpoint"], fleet.mqtt_port)) as raw,
        context.wrap_socket(raw, server_hostname=fleet.ready["endpoint"]) as wrapped,
    ):
        wrapped.sendall(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02xx")
        if not wrapped.recv(1):
            raise ConnectionResetError


def test_a_client_that_expects_another_name_refuses_the_server(fleet: FleetManager) -> None:
    context = ssl.create_default_context(cafile=fleet.ready["ca"])
    with (
        pytest.raises(ssl.SSLCertVerificationError),
        socket.create_connection((fleet.ready["endpoint"], fleet.mqtt_port)) as raw,
    ):
        context.wrap_socket(raw, server_hostname="elsewhere.example")


def test_revoking_a_certificate_closes_its_connection_and_keeps_it_out(
    fleet: FleetManager, judge: Judge, tmp_path: Path
) -> None:
    credentials = register_device(judge, tmp_path, "gamma")
    peer = Peer(fleet, "gamma", credentials)
    assert peer.connect()
    judge.iot.update_certificate(certificateId=credentials.id, newStatus="REVOKED")
    assert peer.closed.wait(10)
    assert not Peer(fleet, "gamma", credentials).connect()


def test_a_policy_that_is_detached_stops_a_running_connection(
    fleet: FleetManager, judge: Judge, tmp_path: Path
) -> None:
    credentials = register_device(judge, tmp_path, "delta")
    peer = Peer(fleet, "delta", credentials)
    assert peer.connect()
    assert peer.acknowledged("$aws/things/delta/shadow/get", b"")
    judge.iot.detach_policy(policyName="edgeagent-device", target=credentials.arn)
    peer.publish("$aws/things/delta/shadow/get", b"")
    assert peer.closed.wait(10)


def test_the_claim_certificate_reaches_provisioning_and_nothing_else(fleet: FleetManager) -> None:
    claim = Credentials(Path(fleet.ready["claim_certificate"]), Path(fleet.ready["claim_key"]), "", "")
    peer = Peer(fleet, "factory-1", claim)
    assert peer.connect()
    topic, _ = peer.request("$aws/certificates/create/json", {})
    assert topic == "$aws/certificates/create/json/accepted"
    peer.publish("$aws/things/alpha/shadow/update", {"state": {"reported": {"owned": True}}})
    assert peer.closed.wait(10)


def test_an_api_call_with_a_wrong_secret_is_refused(fleet: FleetManager) -> None:
    import boto3

    session = boto3.Session(profile_name="edgefleet")
    forged = session.client("iot", aws_secret_access_key="x" * 40, aws_access_key_id="AKIAFORGEDFORGED0000")
    with pytest.raises(ClientError) as refused:
        forged.list_things()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
