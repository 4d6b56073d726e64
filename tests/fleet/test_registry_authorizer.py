# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgefleet import names
from edgefleet.broker.authorizer import Authorizer, Denied
from edgefleet.pki import Authority
from edgefleet.registry import certificates, groups, policies, things
from edgefleet.registry.authorizer import RegistryAuthorizer, RegistryPrincipal
from edgefleet.registry.policies import Target
from edgefleet.store import Store, Tx

OWN_TOPICS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "iot:Connect",
            "Resource": names.arn("client/${iot:Connection.Thing.ThingName}"),
        },
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": names.arn("topic/$aws/things/${iot:Connection.Thing.ThingName}/*"),
        },
    ],
}


def allow(action: str, resource: str, **more: Any) -> dict[str, Any]:
    one = {"Effect": "Allow", "Action": action, "Resource": names.arn(resource), **more}
    return {"Version": "2012-10-17", "Statement": [one]}


class World:
    """A registry with one thing, one ACTIVE certificate attached to it, and a policy for the thing's own topics."""

    def __init__(self, authority: Authority) -> None:
        self.store = Store(":memory:")
        self.authorizer = RegistryAuthorizer(self.store)
        pem, _ = authority.issue_device()
        self.der = ssl.PEM_cert_to_DER_cert(pem)

        def setup(tx: Tx) -> str:
            things.create(tx, "pump-1", attributes={"site": "north"})
            certificate = certificates.register(tx, pem, "ACTIVE")
            certificates.attach(tx, "pump-1", certificate)
            policies.create(tx, "own", json.dumps(OWN_TOPICS))
            policies.attach(tx, "own", Target("cert", certificate))
            return certificate

        self.certificate = self.change(setup)

    def change(self, work: Callable[[Tx], Any]) -> Any:
        """As the site does: commit, then tell the authorizer if it must look again."""
        with self.store.transaction() as tx:
            result = work(tx)
        if tx.policies_changed:
            self.authorizer.forget()
        return result

    def grant(self, name: str, document: dict[str, Any], target: Target | None = None) -> None:
        def work(tx: Tx) -> None:
            policies.create(tx, name, json.dumps(document))
            policies.attach(tx, name, target or Target("cert", self.certificate))

        self.change(work)

    def connect(
        self, client_id: str = "pump-1", persistent: bool = False, will: str | None = None
    ) -> RegistryPrincipal:
        return self.authorizer.connect(self.der, client_id, "10.0.0.7", persistent=persistent, will_topic=will)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def world(authority: Authority) -> World:
    return World(authority)


def test_it_is_what_the_broker_asks_for(world: World) -> None:
    authorizer: Authorizer = world.authorizer
    assert authorizer.certificate_active(world.der)


def test_a_device_reaches_its_own_topics_only(world: World) -> None:
    principal = world.connect()
    assert (principal.thing_name, principal.certificate_id) == ("pump-1", world.certificate)
    assert principal.allows("iot:Publish", "topic/$aws/things/pump-1/jobs/get")
    assert not principal.allows("iot:Publish", "topic/$aws/things/pump-2/jobs/get")
    assert not principal.allows("iot:Subscribe", "topicfilter/#")


def test_an_unknown_certificate_is_denied(world: World, authority: Authority) -> None:
    stranger = ssl.PEM_cert_to_DER_cert(authority.issue_device()[0])
    with pytest.raises(Denied, match="not registered"):
        world.authorizer.connect(stranger, "pump-1", "10.0.0.7", persistent=False, will_topic=None)
    assert not world.authorizer.certificate_active(stranger)


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_a_certificate_that_is_not_active_is_denied(world: World, status: str) -> None:
    world.change(lambda tx: certificates.set_status(tx, world.certificate, status))
    assert not world.authorizer.certificate_active(world.der)
    with pytest.raises(Denied, match=status):
        world.connect()


def test_a_pending_certificate_is_denied(world: World, authority: Authority) -> None:
    pem, _ = authority.issue_device()
    world.change(lambda tx: certificates.register(tx, pem, "PENDING_ACTIVATION"))
    with pytest.raises(Denied, match="PENDING_ACTIVATION"):
        world.authorizer.connect(ssl.PEM_cert_to_DER_cert(pem), "x", "::1", persistent=False, will_topic=None)


def test_another_client_id_has_no_thing_and_no_permission(world: World) -> None:
    with pytest.raises(Denied, match="no policy"):
        world.connect("pump-2")


def test_an_exclusive_certificate_acts_for_its_thing_under_any_client_id(world: World) -> None:
    world.change(lambda tx: certificates.attach(tx, "pump-1", world.certificate, exclusive=True))
    world.grant("any", allow("iot:Connect", "client/*"))
    principal = world.connect("anything")
    assert principal.thing_name == "pump-1"
    assert principal.allows("iot:Publish", "topic/$aws/things/pump-1/jobs/get")


def test_a_running_connection_follows_policy_changes(world: World) -> None:
    principal = world.connect()
    assert not principal.allows("iot:Publish", "topic/extra")
    world.grant("extra", allow("iot:Publish", "topic/extra"))
    assert principal.allows("iot:Publish", "topic/extra")
    world.change(lambda tx: policies.detach(tx, "extra", Target("cert", world.certificate)))
    assert not principal.allows("iot:Publish", "topic/extra")


def test_a_new_default_version_counts_at_once(world: World) -> None:
    principal = world.connect()
    nothing = json.dumps(allow("iot:Connect", "client/*"))
    world.change(lambda tx: policies.create_version(tx, "own", nothing, set_default=True))
    assert not principal.allows("iot:Publish", "topic/$aws/things/pump-1/jobs/get")


def test_a_revoked_certificate_can_do_nothing_even_before_its_socket_closes(world: World) -> None:
    principal = world.connect()
    world.change(lambda tx: certificates.set_status(tx, world.certificate, "REVOKED"))
    assert not principal.allows("iot:Publish", "topic/$aws/things/pump-1/jobs/get")


def test_a_detached_thing_leaves_the_connection_without_its_topics(world: World) -> None:
    principal = world.connect()
    world.change(lambda tx: certificates.detach(tx, "pump-1", world.certificate))
    assert not principal.allows("iot:Publish", "topic/$aws/things/pump-1/jobs/get")


def test_policies_of_groups_above_the_thing_apply(world: World) -> None:
    world.change(lambda tx: groups.create(tx, "world"))
    world.change(lambda tx: groups.create(tx, "europe", "world"))
    world.grant("group", allow("iot:Publish", "topic/shared"), Target("thinggroup", "world"))
    principal = world.connect()
    assert not principal.allows("iot:Publish", "topic/shared")
    world.change(lambda tx: groups.add_thing(tx, "europe", "pump-1"))
    assert principal.allows("iot:Publish", "topic/shared")
    world.change(lambda tx: groups.remove_thing(tx, "europe", "pump-1"))
    assert not principal.allows("iot:Publish", "topic/shared")


def test_thing_attributes_are_followed(world: World) -> None:
    world.grant("site", allow("iot:Publish", "topic/site/${iot:Connection.Thing.Attributes[site]}"))
    principal = world.connect()
    assert principal.allows("iot:Publish", "topic/site/north")
    world.change(lambda tx: things.update(tx, "pump-1", attributes={"site": "south"}))
    assert not principal.allows("iot:Publish", "topic/site/north")
    assert principal.allows("iot:Publish", "topic/site/south")


@pytest.mark.parametrize(("persistent", "will", "welcome"), [(False, None, 1), (True, None, 1), (True, "w", 0)])
def test_connect_attributes_are_judged(world: World, persistent: bool, will: str | None, welcome: bool) -> None:
    condition = {"ForAllValues:StringEquals": {"iot:ConnectAttributes": ["PersistentConnect"]}}
    world.grant("c", allow("iot:Connect", "client/c", Condition=condition))
    if welcome:
        world.connect("c", persistent, will)
    else:
        with pytest.raises(Denied):
            world.connect("c", persistent, will)


def test_facts_of_the_certificate_are_variables(world: World) -> None:
    world.grant("c", allow("iot:Connect", "client/${iot:Certificate.Subject.CommonName}"))
    world.connect("AWS IoT Certificate")
    condition = {"ForAnyValue:StringEquals": {"iot:Certificate.Issuer.CommonName.List": "edgefleet site CA"}}
    world.grant("i", allow("iot:Connect", "client/issued", Condition=condition))
    world.connect("issued")


def test_many_different_topics_do_not_fill_the_memory(world: World) -> None:
    principal = world.connect()
    for n in range(3000):
        principal.allows("iot:Publish", f"topic/{n}")
    assert len(principal._decisions) <= 1024


def test_decisions_survive_the_process(tmp_path: Path, authority: Authority) -> None:
    pem, _ = authority.issue_device()
    store = Store(tmp_path / "db")
    with store.transaction() as tx:
        certificate = certificates.register(tx, pem, "ACTIVE")
        policies.create(tx, "any", json.dumps(allow("iot:Connect", "client/*")))
        policies.attach(tx, "any", Target("cert", certificate))
    store.close()
    again = RegistryAuthorizer(Store(tmp_path / "db"))
    assert again.connect(ssl.PEM_cert_to_DER_cert(pem), "x", "::1", persistent=True, will_topic="w").thing_name is None
