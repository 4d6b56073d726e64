# SPDX-License-Identifier: Apache-2.0
"""A device may provision again with its own certificate, and only for itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeagent import topics
from edgefleet.messages import Request
from edgefleet.pki import Authority
from edgefleet.registry import certificates
from tests.fleet.test_provisioning_claim import Plane, code

CLAIM = "0" * 64


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(Authority.load_or_create(tmp_path))


def ask(plane: Plane, certificate: str, serial: str) -> tuple[str, dict[str, Any]]:
    """Get a certificate for the thing pump-`serial`, on a connection with `certificate`."""

    def request(topic: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        with plane.store.transaction() as tx:
            plane.claim.handle(tx, Request(topic, json.dumps(body).encode(), "client", certificate))
        message: Any = tx.outgoing[0]
        return message.topic.rpartition("/")[2], json.loads(message.payload)

    verdict, created = request(topics.CREATE_KEYS, {})
    assert verdict == "accepted"
    token = created["certificateOwnershipToken"]
    verdict, answer = request(
        topics.provision("pumps"), {"certificateOwnershipToken": token, "parameters": {"Serial": serial}}
    )
    return verdict, {**created, **answer}


def test_a_device_gets_a_second_certificate_for_its_thing_and_the_first_stays(plane: Plane) -> None:
    _, first = ask(plane, CLAIM, "17")
    verdict, second = ask(plane, first["certificateId"], "17")
    assert (verdict, second["thingName"]) == ("accepted", "pump-17")
    assert (plane.status(first), plane.status(second)) == ("ACTIVE", "ACTIVE")
    with plane.store.reading() as tx:
        assert certificates.things_of(tx, second["certificateId"]) == ["pump-17"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_device_gets_no_certificate_for_another_thing(plane: Plane, exists: bool) -> None:
    _, first = ask(plane, CLAIM, "17")
    if exists:
        ask(plane, CLAIM, "18")
    before = plane.counts()
    answer = ask(plane, first["certificateId"], "18")
    assert code((answer[0], {n: answer[1][n] for n in ("statusCode", "errorCode", "errorMessage")})) == "AccessDenied"
    assert plane.counts() == before


def test_a_claim_certificate_may_make_any_thing(plane: Plane) -> None:
    assert [ask(plane, CLAIM, serial)[0] for serial in ("17", "18")] == ["accepted"] * 2
