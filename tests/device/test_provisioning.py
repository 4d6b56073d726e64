# SPDX-License-Identifier: Apache-2.0
"""Fleet Provisioning by claim from the device's side (aws-iot-protocol.md 6.1), answered as the service answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography import x509

from edgeagent.csr import request
from edgeagent.errors import AgentError, ConfigError, ProtocolError, Refused
from edgeagent.ports.linux import LinuxPort
from edgeagent.provisioning import provision

CREATE = "$aws/certificates/create/json"
CSR = "$aws/certificates/create-from-csr/json"
REGISTER = "$aws/provisioning-templates/fleet/provision/json"
CREATED = {
    "certificateId": "ab" * 32,
    "certificatePem": "CERT",
    "privateKey": "KEY",
    "certificateOwnershipToken": "token",
}
REGISTERED = {"deviceConfiguration": {"a": "b"}, "thingName": "thing-1"}


class Service:
    """Stands for Requests: answers by topic, and keeps what was asked in order."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.filters: list[str] = []

    async def subscribe(self, filters: list[str]) -> None:
        assert not self.calls, "the answers must be subscribed before anything is asked"
        self.filters += filters

    async def call(self, topic: str, body: dict[str, Any], token: bool) -> dict[str, Any]:
        assert token is False
        self.calls.append((topic, body))
        answer = self.answers[topic]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


FACTS = {"serial": "s-1", "board": "B"}


def ask(service: Service, csr: bool = False, port: Any = None, **parameters: str) -> dict[str, Any]:
    claim = {"template": "fleet", "parameters": parameters or {"SerialNumber": "{serial}"}}

    async def scenario() -> dict[str, Any]:
        pair = await request(port, FACTS) if csr else None
        return await provision(service, claim, FACTS, pair)

    return asyncio.run(scenario())


def test_keys_and_certificate_are_created_and_registered() -> None:
    service = Service({CREATE: CREATED, REGISTER: REGISTERED})
    assert ask(service) == {
        "thingName": "thing-1",
        "certificatePem": "CERT",
        "privateKey": "KEY",
        "deviceConfiguration": {"a": "b"},
    }
    assert service.calls == [
        (CREATE, {}),
        (REGISTER, {"certificateOwnershipToken": "token", "parameters": {"SerialNumber": "s-1"}}),
    ]
    assert sorted(service.filters) == sorted(
        topic + end for topic in (CREATE, REGISTER) for end in ("/accepted", "/rejected")
    )


@pytest.mark.parametrize("port", [LinuxPort(), None], ids=["linux", "portable"])
def test_with_a_csr_the_key_never_leaves_the_device(port: Any) -> None:
    created = {name: CREATED[name] for name in CREATED if name != "privateKey"}
    service = Service({CSR: created, REGISTER: REGISTERED})
    answer = ask(service, csr=True, port=port)
    assert "PRIVATE KEY" in answer["privateKey"]
    topic, body = service.calls[0]
    assert topic == CSR and list(body) == ["certificateSigningRequest"]
    made = x509.load_pem_x509_csr(body["certificateSigningRequest"].encode())
    assert made.subject.rfc4514_string() == "CN=s-1"


def test_a_csr_without_randomness_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", bytes)
    service = Service({})
    with pytest.raises(ConfigError, match="not random"):
        ask(service, csr=True)
    assert not service.calls


def test_parameters_name_facts_of_the_device() -> None:
    service = Service({CREATE: CREATED, REGISTER: REGISTERED})
    ask(service, SerialNumber="pump-{serial}", Type="{board}/{board}", Site="north")
    assert service.calls[1][1]["parameters"] == {"SerialNumber": "pump-s-1", "Type": "B/B", "Site": "north"}


def test_a_fact_this_device_does_not_have_is_named() -> None:
    with pytest.raises(ConfigError, match=r"parameters\.Site: no such fact: \{site\}"):
        ask(Service({}), Site="{site}")


def test_a_template_may_give_no_device_configuration() -> None:
    service = Service({CREATE: CREATED, REGISTER: {"thingName": "t"}})
    assert ask(service)["deviceConfiguration"] is None


@pytest.mark.parametrize("topic", [CREATE, REGISTER])
def test_a_refusal_carries_the_code_of_the_service(topic: str) -> None:
    answers: dict[str, Any] = {CREATE: CREATED, REGISTER: REGISTERED}
    answers[topic] = Refused("InvalidTemplate", "no")
    with pytest.raises(Refused) as caught:
        ask(Service(answers))
    assert caught.value.code == "InvalidTemplate"


@pytest.mark.parametrize(
    ("topic", "field", "value"),
    [
        (CREATE, "certificatePem", None),
        (CREATE, "certificatePem", ""),
        (CREATE, "certificatePem", 7),
        (CREATE, "certificatePem", "x" * 8193),
        (CREATE, "privateKey", None),
        (CREATE, "privateKey", ["KEY"]),
        (CREATE, "certificateOwnershipToken", None),
        (CREATE, "certificateOwnershipToken", "x" * 2049),
        (REGISTER, "thingName", None),
        (REGISTER, "thingName", "x" * 129),
    ],
)
def test_an_answer_of_another_shape_names_the_member_and_nothing_secret(topic: str, field: str, value: Any) -> None:
    answers: dict[str, Any] = {CREATE: dict(CREATED), REGISTER: dict(REGISTERED)}
    answers[topic][field] = value
    with pytest.raises(ProtocolError, match=field) as caught:
        ask(Service(answers))
    assert isinstance(caught.value, AgentError)
    assert "KEY" not in str(caught.value)
