# SPDX-License-Identifier: Apache-2.0
"""Fleet provisioning by claim as a device sees it: requests in, replies out (section 6.1)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeagent import topics
from edgefleet.errors import ApiError
from edgefleet.messages import Message, Request
from edgefleet.pki import Authority, certificate_id
from edgefleet.provisioning import ownership, templates
from edgefleet.provisioning.device_plane import ClaimProvisioning
from edgefleet.registry import certificates, groups, policies, things, types
from edgefleet.registry.policies import Target
from edgefleet.store import Store

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}


def body(override: dict[str, str] | None = None, **properties: Any) -> str:
    thing = {
        "Type": "AWS::IoT::Thing",
        "Properties": {"ThingName": {"Fn::Join": ["", ["pump-", {"Ref": "Serial"}]]}, **properties},
        "OverrideSettings": override or {},
    }
    return json.dumps(
        {
            "Parameters": {"Serial": {"Type": "String"}, "Site": {"Type": "String", "Default": "north"}},
            "Resources": {
                "thing": thing,
                "certificate": {
                    "Type": "AWS::IoT::Certificate",
                    "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
                },
                "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": POLICY}},
            },
            "DeviceConfiguration": {"site": {"Ref": "Site"}},
        }
    )


class Plane:
    def __init__(self, authority: Authority) -> None:
        self.store = Store(":memory:")
        self.claim = ClaimProvisioning(authority)
        with self.store.transaction() as tx:
            templates.create(tx, "pumps", body(), "arn:role", enabled=True)

    def use(self, template: str) -> None:
        with self.store.transaction() as tx:
            templates.create_version(tx, "pumps", template, set_default=True)

    def ask(self, topic: str, payload: bytes | dict[str, Any] = b"") -> tuple[str, dict[str, Any]]:
        """(`accepted` or `rejected`, the reply)."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        with self.store.transaction() as tx:
            assert self.claim.handle(tx, Request(topic, data, "some-client", "0" * 64))
        (message,) = tx.outgoing
        assert isinstance(message, Message)
        assert message.to_requester
        head, _, verdict = message.topic.rpartition("/")
        assert head == topic
        return verdict, json.loads(message.payload)

    def create(self) -> dict[str, Any]:
        verdict, reply = self.ask(topics.CREATE_KEYS)
        assert verdict == "accepted"
        return reply

    def provision(self, created: dict[str, Any], **parameters: str) -> tuple[str, dict[str, Any]]:
        token = created["certificateOwnershipToken"]
        return self.ask(
            topics.provision("pumps"), {"certificateOwnershipToken": token, "parameters": {"Serial": "17"} | parameters}
        )

    def status(self, created: dict[str, Any]) -> str | None:
        with self.store.reading() as tx:
            found = certificates.get(tx, created["certificateId"])
            return None if found is None else found["status"]

    def counts(self) -> list[int]:
        tables = ("things", "thing_principals", "policies", "policy_targets", "thing_group_members")
        with self.store.reading() as tx:
            return [tx.value(f"SELECT count(*) FROM {table}") for table in tables]


def code(answer: tuple[str, dict[str, Any]]) -> str:
    verdict, reply = answer
    assert verdict == "rejected"
    assert set(reply) == {"statusCode", "errorCode", "errorMessage"}
    return str(reply["errorCode"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def plane(authority: Authority) -> Plane:
    return Plane(authority)


def csr() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("payload", [b"", b"{}", b" "])
def test_keys_and_certificate_are_made(plane: Plane, payload: bytes) -> None:
    verdict, reply = plane.ask(topics.CREATE_KEYS, payload)
    assert verdict == "accepted"
    assert set(reply) == {"certificateId", "certificatePem", "privateKey", "certificateOwnershipToken"}
    assert reply["certificateId"] == certificate_id(reply["certificatePem"])
    key = serialization.load_pem_private_key(reply["privateKey"].encode(), None)
    assert x509.load_pem_x509_certificate(reply["certificatePem"].encode()).public_key() == key.public_key()
    assert plane.status(reply) == "PENDING_ACTIVATION"


def test_the_reply_fits_into_the_buffer_of_a_board(plane: Plane) -> None:
    with plane.store.transaction() as tx:
        plane.claim.handle(tx, Request(topics.CREATE_KEYS, b"", "c", "0" * 64))
    assert isinstance(tx.outgoing[0], Message) and len(tx.outgoing[0].payload) < 4096


def test_a_csr_is_certified_without_a_key_in_the_reply(plane: Plane) -> None:
    verdict, reply = plane.ask(topics.CREATE_FROM_CSR, {"certificateSigningRequest": csr()})
    assert verdict == "accepted"
    assert set(reply) == {"certificateId", "certificatePem", "certificateOwnershipToken"}
    assert plane.provision(reply)[0] == "accepted"


def test_a_device_is_provisioned(plane: Plane) -> None:
    created = plane.create()
    assert plane.provision(created) == ("accepted", {"deviceConfiguration": {"site": "north"}, "thingName": "pump-17"})
    assert plane.status(created) == "ACTIVE"
    with plane.store.reading() as tx:
        assert certificates.things_of(tx, created["certificateId"]) == ["pump-17"]
        assert len(policies.applied(tx, created["certificateId"], "pump-17")) == 1


def test_a_fleet_shares_one_policy_of_the_same_document(plane: Plane) -> None:
    for serial in ("1", "2", "3"):
        assert plane.provision(plane.create(), Serial=serial)[0] == "accepted"
    assert plane.counts()[:4] == [3, 3, 1, 3]


def test_a_device_killed_between_the_requests_starts_again(plane: Plane) -> None:
    plane.create()
    second = plane.create()
    assert plane.provision(second)[0] == "accepted"


def test_the_same_thing_again_gets_one_more_certificate(plane: Plane) -> None:
    first, second = plane.create(), plane.create()
    assert plane.provision(first)[0] == "accepted"
    assert plane.provision(second)[0] == "accepted"
    assert (plane.status(first), plane.status(second)) == ("ACTIVE", "ACTIVE")
    with plane.store.reading() as tx:
        assert len(certificates.attachments_of_thing(tx, "pump-17")) == 2


# Tokens


def test_a_token_is_good_for_one_provisioning(plane: Plane) -> None:
    created = plane.create()
    plane.provision(created)
    assert code(plane.provision(created, Serial="18")) == "InvalidCertificateOwnershipToken"


def test_a_token_is_good_for_an_hour(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    created = plane.create()
    later = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    assert code(plane.provision(created)) == "InvalidCertificateOwnershipToken"
    plane.create()
    assert plane.status(created) is None, "the certificate nobody came for is removed"


@pytest.mark.parametrize("token", [None, "", 7, "guessed", "\ud800"])
def test_other_tokens_are_refused(plane: Plane, token: object) -> None:
    request = {"certificateOwnershipToken": token, "parameters": {"Serial": "17"}}
    answer = plane.ask(topics.provision("pumps"), request)
    assert code(answer) in ("InvalidCertificateOwnershipToken", "InvalidPayload")


def test_a_token_of_a_revoked_certificate_is_worthless(plane: Plane) -> None:
    created = plane.create()
    with plane.store.transaction() as tx:
        certificates.set_status(tx, created["certificateId"], "REVOKED")
    assert code(plane.provision(created)) == "InvalidCertificateOwnershipToken"
    assert plane.status(created) == "REVOKED"


def test_tokens_are_not_kept_in_the_store(tmp_path: Path, authority: Authority) -> None:
    store = Store(tmp_path / "db")
    with store.transaction() as tx:
        _, token = ownership.create(tx, authority.issue_device()[0])
    store.close()
    assert len(token) == 128
    assert not any(token.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_the_number_of_waiting_certificates_is_bounded(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "PENDING", 2)
    plane.create()
    plane.create()
    verdict, reply = plane.ask(topics.CREATE_KEYS)
    assert (verdict, reply["statusCode"], reply["errorCode"]) == ("rejected", 429, "ThrottlingException")


# Refusals


@pytest.mark.parametrize("payload", [b"{", b"[]", b"\xff", b"[" * 100_000, b"7"])
@pytest.mark.parametrize("topic", [topics.CREATE_KEYS, topics.CREATE_FROM_CSR, topics.provision("pumps")])
def test_an_unparsable_payload_is_refused(plane: Plane, topic: str, payload: bytes) -> None:
    assert code(plane.ask(topic, payload)) == "InvalidPayload"


def test_a_bad_csr_is_refused(plane: Plane) -> None:
    assert code(plane.ask(topics.CREATE_FROM_CSR, {})) == "InvalidPayload"
    assert code(plane.ask(topics.CREATE_FROM_CSR, {"certificateSigningRequest": "x"})) == "InvalidCsr"


def test_an_unknown_or_disabled_template_is_refused(plane: Plane) -> None:
    created = plane.create()
    request = {"certificateOwnershipToken": created["certificateOwnershipToken"]}
    assert code(plane.ask(topics.provision("valves"), request)) == "InvalidTemplate"
    assert code(plane.ask(topics.provision("a/b"), request)) == "InvalidTemplate"
    with plane.store.transaction() as tx:
        templates.update(tx, "pumps", enabled=False)
    assert code(plane.provision(created)) == "InvalidTemplate"


@pytest.mark.parametrize("parameters", [{}, {"Serial": 17}, [], "x"])
def test_parameters_that_do_not_fit_are_refused(plane: Plane, parameters: object) -> None:
    token = plane.create()["certificateOwnershipToken"]
    answer = plane.ask(topics.provision("pumps"), {"certificateOwnershipToken": token, "parameters": parameters})
    assert code(answer) == "InvalidParameters"


def test_a_device_cannot_name_another_certificate(plane: Plane) -> None:
    victim, created = plane.create(), plane.create()
    assert plane.provision(created, **{"AWS::IoT::Certificate::Id": victim["certificateId"]})[0] == "accepted"
    assert (plane.status(victim), plane.status(created)) == ("PENDING_ACTIVATION", "ACTIVE")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (body(ThingTypeName="unknown"), "Thing type"),
        (body(ThingGroups=["unknown"]), "Thing group"),
        (body(AttributePayload={"site": "two words"}), "attribute 'site'"),
        (body().replace('"PolicyDocument": ' + json.dumps(POLICY), '"PolicyName": "unknown"'), "Policy not found"),
    ],
)
def test_what_the_registry_refuses_leaves_nothing_behind(plane: Plane, template: str, message: str) -> None:
    plane.use(template)
    created = plane.create()
    before = plane.counts()
    answer = plane.provision(created)
    assert code(answer) == "ProvisioningFailed"
    assert message in answer[1]["errorMessage"]
    assert plane.counts() == before
    assert plane.status(created) == "PENDING_ACTIVATION"
    plane.use(body())
    assert plane.provision(created)[0] == "accepted", "the token is good for another try"


@pytest.mark.parametrize("serial", ["a b", "", "x" * 200, "a/b", "#"])
def test_an_illegal_thing_name_is_refused(plane: Plane, serial: str) -> None:
    plane.use(body().replace("pump-", ""))
    assert code(plane.provision(plane.create(), Serial=serial)) == "ProvisioningFailed"


def test_other_topics_are_not_ours(plane: Plane) -> None:
    for topic in ("$aws/certificates/create/cbor", "$aws/things/x/jobs/get", topics.CREATE_KEYS + "/accepted"):
        with plane.store.transaction() as tx:
            assert not plane.claim.handle(tx, Request(topic, b"", "c", "0" * 64))


# Things that exist already


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({}, None),
        ({"AttributePayload": "FAIL", "ThingGroups": "FAIL", "ThingTypeName": "FAIL"}, None),
        (dict.fromkeys(("AttributePayload", "ThingGroups", "ThingTypeName"), "DO_NOTHING"), ({"old": "1"}, ["a"], "x")),
        (dict.fromkeys(("AttributePayload", "ThingGroups", "ThingTypeName"), "REPLACE"), ({"new": "2"}, ["b"], "y")),
        (
            {"AttributePayload": "MERGE", "ThingGroups": "MERGE", "ThingTypeName": "REPLACE"},
            ({"old": "1", "new": "2"}, ["a", "b"], "y"),
        ),
    ],
)
def test_override_settings(plane: Plane, override: dict[str, str], expected: Any) -> None:
    with plane.store.transaction() as tx:
        for name in ("x", "y"):
            types.create(tx, name)
        for name in ("a", "b"):
            groups.create(tx, name)
        things.create(tx, "pump-17", "x", {"old": "1"})
        groups.add_thing(tx, "a", "pump-17")
    plane.use(body(override, AttributePayload={"new": "2"}, ThingGroups=["b"], ThingTypeName="y"))
    answer = plane.provision(plane.create())
    if expected is None:
        assert code(answer) == "ProvisioningFailed"
        expected = ({"old": "1"}, ["a"], "x")
    with plane.store.reading() as tx:
        thing = things.require(tx, "pump-17")
        assert (thing["attributes"], groups.groups_of(tx, "pump-17"), thing["thingTypeName"]) == expected


def test_identical_values_never_conflict(plane: Plane) -> None:
    plane.use(body(AttributePayload={"site": "north"}))
    assert plane.provision(plane.create())[0] == "accepted"
    assert plane.provision(plane.create())[0] == "accepted"


def test_an_inactive_certificate_stays_shut(plane: Plane) -> None:
    plane.use(body().replace('"Active"', '"Inactive"'))
    created = plane.create()
    assert plane.provision(created)[0] == "accepted"
    assert plane.status(created) == "INACTIVE"


def test_provisioning_empties_no_authorizer(plane: Plane) -> None:
    """Thousands of devices onboarding must not make every living connection look again for each of them."""
    created = plane.create()
    request = {"certificateOwnershipToken": created["certificateOwnershipToken"], "parameters": {"Serial": "17"}}
    with plane.store.transaction() as tx:
        plane.claim.handle(tx, Request(topics.provision("pumps"), json.dumps(request).encode(), "c", "0" * 64))
    assert not tx.policies_changed
    assert tx.touched == {"pump-17"}


def test_a_certificate_with_ten_policies_takes_no_more(plane: Plane) -> None:
    created = plane.create()
    with plane.store.transaction() as tx:
        for number in range(10):
            policies.create(tx, f"p{number}", json.dumps(POLICY))
            policies.attach(tx, f"p{number}", Target("cert", created["certificateId"]))
    assert code(plane.provision(created)) == "ProvisioningFailed"


# The control plane of templates


def test_a_broken_template_is_not_stored(plane: Plane) -> None:
    with pytest.raises(ApiError, match="The template body is invalid"), plane.store.transaction() as tx:
        templates.create(tx, "broken", "{}", "arn:role")
    with plane.store.reading() as tx:
        assert templates.get(tx, "broken") is None
