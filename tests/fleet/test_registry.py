# SPDX-License-Identifier: Apache-2.0
"""Things, types, groups, certificates and policies as the services know them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from edgefleet import names
from edgefleet.errors import ApiError
from edgefleet.messages import Disconnect
from edgefleet.pki import Authority
from edgefleet.registry import certificates, groups, policies, things, types
from edgefleet.registry.policies import Target
from edgefleet.store import Store, Tx

ALLOW_ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def tx() -> Iterator[Tx]:
    store = Store(":memory:")
    with store.transaction() as transaction:
        yield transaction
    store.close()


def refused(code: str, message: str | None = None) -> pytest.RaisesExc[ApiError]:
    return pytest.raises(ApiError, match=message, check=lambda error: error.code == code)


# Things


def test_a_thing_has_an_id_and_version_one(tx: Tx) -> None:
    made = things.create(tx, "pump-1", attributes={"site": "north"})
    assert made == things.get(tx, "pump-1")
    assert (made["version"], len(made["thingId"]), made["attributes"]) == (1, 36, {"site": "north"})


def test_the_same_thing_again_succeeds_and_changes_nothing(tx: Tx) -> None:
    first = things.create(tx, "pump-1", attributes={"site": "north"})
    assert things.create(tx, "pump-1", attributes={"site": "north"}) == first


def test_a_different_thing_of_that_name_conflicts(tx: Tx) -> None:
    things.create(tx, "pump-1")
    with refused("ResourceAlreadyExistsException"):
        things.create(tx, "pump-1", attributes={"site": "north"})


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 129, "a\n"])
def test_illegal_names_are_refused(tx: Tx, name: str) -> None:
    with refused("InvalidRequestException", "thingName"):
        things.create(tx, name)


def test_illegal_attributes_are_named(tx: Tx) -> None:
    with refused("InvalidRequestException", "attributeName"):
        things.create(tx, "pump-1", attributes={"a b": "x"})
    with refused("InvalidRequestException", "attribute 'a'"):
        things.create(tx, "pump-1", attributes={"a": "two words"})
    with refused("InvalidRequestException", "attribute 'a'"):
        things.create(tx, "pump-1", attributes={"a": 7})


def test_three_attributes_without_a_type_and_fifty_with(tx: Tx) -> None:
    types.create(tx, "pump")
    four = {f"a{n}": "x" for n in range(4)}
    with refused("InvalidRequestException", "without a thing type can have at most 3"):
        things.create(tx, "pump-1", attributes=four)
    things.create(tx, "pump-1", "pump", four)
    with refused("InvalidRequestException", "with a thing type can have at most 50"):
        things.create(tx, "pump-2", "pump", {f"a{n}": "x" for n in range(51)})
    with refused("InvalidRequestException", "at most 3"):
        things.update(tx, "pump-1", remove_type=True)


def test_an_update_replaces_or_merges_attributes(tx: Tx) -> None:
    things.create(tx, "pump-1", attributes={"a": "1", "b": "2"})
    assert things.update(tx, "pump-1", attributes={"b": "", "c": "3"}, merge=True)["attributes"] == {"a": "1", "c": "3"}
    replaced = things.update(tx, "pump-1", attributes={"d": "4"})
    assert (replaced["attributes"], replaced["version"]) == ({"d": "4"}, 3)


def test_an_update_of_another_version_conflicts(tx: Tx) -> None:
    things.create(tx, "pump-1")
    with refused("VersionConflictException"):
        things.update(tx, "pump-1", attributes={"a": "1"}, expected_version=2)
    with refused("VersionConflictException"):
        things.delete(tx, "pump-1", expected_version=2)


def test_deleting_an_unknown_thing_succeeds(tx: Tx) -> None:
    things.delete(tx, "nobody")


def test_every_change_touches_the_index(tx: Tx) -> None:
    for change in (
        lambda: things.create(tx, "pump-1"),
        lambda: things.update(tx, "pump-1", attributes={"a": "1"}),
        lambda: things.delete(tx, "pump-1"),
    ):
        tx.touched.clear()
        change()
        assert tx.touched == {"pump-1"}


def test_things_are_listed_page_by_page_with_filters(tx: Tx) -> None:
    types.create(tx, "pump")
    for n in range(5):
        things.create(tx, f"pump-{n}", "pump" if n % 2 else None, {"site": "north" if n < 3 else "south"})
    page, token = things.list_(tx, size=3)
    rest, end = things.list_(tx, size=3, token=token)
    assert [thing["thingName"] for thing in page + rest] == [f"pump-{n}" for n in range(5)]
    assert end is None
    assert [t["thingName"] for t in things.list_(tx, type_name="pump")[0]] == ["pump-1", "pump-3"]
    assert len(things.list_(tx, attribute="site", value="north")[0]) == 3
    assert len(things.list_(tx, attribute="site", value="no", value_is_prefix=True)[0]) == 3
    assert len(things.list_(tx, attribute="site", value="no")[0]) == 0


# Types


def test_a_deprecated_type_is_not_given_to_things(tx: Tx) -> None:
    types.create(tx, "pump")
    types.deprecate(tx, "pump")
    with refused("InvalidRequestException", "deprecated"):
        things.create(tx, "pump-1", "pump")
    types.deprecate(tx, "pump", undo=True)
    things.create(tx, "pump-1", "pump")


def test_an_unknown_type_is_not_found(tx: Tx) -> None:
    with refused("ResourceNotFoundException", "pump"):
        things.create(tx, "pump-1", "pump")


def test_a_type_is_deleted_five_minutes_after_deprecation_and_unused(tx: Tx, monkeypatch: pytest.MonkeyPatch) -> None:
    types.create(tx, "pump")
    things.create(tx, "pump-1", "pump")
    with refused("InvalidRequestException", "must be deprecated"):
        types.delete(tx, "pump")
    types.deprecate(tx, "pump")
    with refused("InvalidRequestException", "5 minutes"):
        types.delete(tx, "pump")
    later = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: later)
    with refused("InvalidRequestException", "still associated"):
        types.delete(tx, "pump")
    things.delete(tx, "pump-1")
    types.delete(tx, "pump")
    assert types.get(tx, "pump") is None


# Groups


def family(tx: Tx, *path: str) -> None:
    for parent, name in zip([None, *path], path, strict=False):
        groups.create(tx, name, parent)


def test_members_of_descendants_belong_to_a_group(tx: Tx) -> None:
    family(tx, "world", "europe", "berlin")
    things.create(tx, "pump-1")
    things.create(tx, "pump-2")
    groups.add_thing(tx, "berlin", "pump-1")
    groups.add_thing(tx, "world", "pump-2")
    assert groups.members(tx, "world") == ["pump-1", "pump-2"]
    assert groups.members(tx, "world", recursive=False) == ["pump-2"]
    assert groups.groups_of(tx, "pump-1") == ["berlin"]
    assert groups.ancestors_of(tx, "berlin") == ["world", "europe"]
    assert groups.effective_groups_of(tx, "pump-1") == ["berlin", "europe", "world"]


def test_a_hierarchy_has_at_most_seven_levels(tx: Tx) -> None:
    family(tx, *(f"g{n}" for n in range(7)))
    with refused("InvalidRequestException", "deeper than 7"):
        groups.create(tx, "g7", "g6")


def test_a_group_has_at_most_a_hundred_children(tx: Tx) -> None:
    groups.create(tx, "root")
    for n in range(100):
        groups.create(tx, f"child-{n}", "root")
    with refused("InvalidRequestException", "100 child groups"):
        groups.create(tx, "one-more", "root")


def test_a_thing_is_in_at_most_ten_groups(tx: Tx) -> None:
    things.create(tx, "pump-1")
    for n in range(11):
        groups.create(tx, f"g{n}")
    for n in range(10):
        groups.add_thing(tx, f"g{n}", "pump-1")
    with refused("InvalidRequestException", "10 groups"):
        groups.add_thing(tx, "g10", "pump-1")


@pytest.mark.parametrize(("first", "second"), [("world", "berlin"), ("berlin", "world")])
def test_a_thing_is_in_one_group_of_a_branch(tx: Tx, first: str, second: str) -> None:
    family(tx, "world", "europe", "berlin")
    things.create(tx, "pump-1")
    groups.add_thing(tx, first, "pump-1")
    groups.add_thing(tx, first, "pump-1")
    with refused("InvalidRequestException", "same hierarchy"):
        groups.add_thing(tx, second, "pump-1")


def test_a_group_with_children_is_not_deleted(tx: Tx) -> None:
    family(tx, "world", "europe")
    with refused("InvalidRequestException", "child groups"):
        groups.delete(tx, "world")
    groups.delete(tx, "europe")
    groups.delete(tx, "world")
    groups.delete(tx, "world")


def test_deleting_a_group_frees_its_things_and_policies(tx: Tx) -> None:
    groups.create(tx, "world")
    things.create(tx, "pump-1")
    groups.add_thing(tx, "world", "pump-1")
    policies.create(tx, "p", ALLOW_ALL)
    policies.attach(tx, "p", Target("thinggroup", "world"))
    groups.delete(tx, "world")
    assert groups.groups_of(tx, "pump-1") == []
    policies.delete(tx, "p")


def test_the_same_group_again_succeeds_and_another_conflicts(tx: Tx) -> None:
    family(tx, "world", "europe")
    groups.create(tx, "europe", "world")
    with refused("ResourceAlreadyExistsException"):
        groups.create(tx, "europe")


def test_group_properties_are_updated(tx: Tx) -> None:
    groups.create(
        tx, "world", properties={"thingGroupDescription": "all", "attributePayload": {"attributes": {"a": "1"}}}
    )
    properties = {"attributePayload": {"attributes": {"b": "2"}, "merge": True}}
    assert groups.update(tx, "world", properties, expected_version=1) == 2
    assert groups.require(tx, "world")["thingGroupProperties"] == {
        "thingGroupDescription": "all",
        "attributePayload": {"attributes": {"a": "1", "b": "2"}},
    }
    with refused("VersionConflictException"):
        groups.update(tx, "world", {}, expected_version=1)


# Certificates


@pytest.fixture
def certificate(tx: Tx, authority: Authority) -> str:
    return certificates.register(tx, authority.issue_device()[0], "ACTIVE")


def test_a_certificate_is_registered_once(tx: Tx, authority: Authority) -> None:
    pem, _ = authority.issue_device()
    certificate_id = certificates.register(tx, pem)
    assert certificates.require(tx, certificate_id)["status"] == "INACTIVE"
    with refused("ResourceAlreadyExistsException"):
        certificates.register(tx, pem)


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_leaving_active_closes_connections(tx: Tx, certificate: str, status: str) -> None:
    certificates.set_status(tx, certificate, status)
    assert tx.outgoing == [Disconnect("FORBIDDEN_ACCESS", certificate, None)]
    assert tx.policies_changed


@pytest.mark.parametrize("status", ["PENDING_ACTIVATION", "PENDING_TRANSFER", "nonsense"])
def test_only_three_states_may_be_set(tx: Tx, certificate: str, status: str) -> None:
    with refused("CertificateStateException"):
        certificates.set_status(tx, certificate, status)


def test_only_an_unused_inactive_certificate_is_deleted(tx: Tx, certificate: str) -> None:
    things.create(tx, "pump-1")
    certificates.attach(tx, "pump-1", certificate)
    policies.create(tx, "p", ALLOW_ALL)
    policies.attach(tx, "p", Target("cert", certificate))
    with refused("CertificateStateException"):
        certificates.delete(tx, certificate, force=True)
    certificates.set_status(tx, certificate, "INACTIVE")
    with refused("DeleteConflictException", "Things"):
        certificates.delete(tx, certificate, force=True)
    certificates.detach(tx, "pump-1", certificate)
    with refused("DeleteConflictException", "policies"):
        certificates.delete(tx, certificate)
    certificates.delete(tx, certificate, force=True)
    assert certificates.get(tx, certificate) is None
    assert policies.targets(tx, "p") == []


def test_an_attached_thing_is_not_deleted(tx: Tx, certificate: str) -> None:
    things.create(tx, "pump-1")
    certificates.attach(tx, "pump-1", certificate)
    with refused("InvalidRequestException", "attached"):
        things.delete(tx, "pump-1")


def test_an_exclusive_certificate_belongs_to_one_thing(tx: Tx, certificate: str) -> None:
    things.create(tx, "pump-1")
    things.create(tx, "pump-2")
    certificates.attach(tx, "pump-1", certificate, exclusive=True)
    with refused("InvalidRequestException", "pump-1 exclusively"):
        certificates.attach(tx, "pump-2", certificate)
    certificates.attach(tx, "pump-1", certificate)
    certificates.attach(tx, "pump-2", certificate)
    with refused("InvalidRequestException", "cannot be exclusive"):
        certificates.attach(tx, "pump-1", certificate, exclusive=True)
    assert certificates.things_of(tx, certificate) == ["pump-1", "pump-2"]


def test_onboarding_leaves_the_caches_of_authorizers_alone(tx: Tx, authority: Authority) -> None:
    """A fleet of thousands that onboards must not make each living connection look again for each new device."""
    policies.create(tx, "p", ALLOW_ALL)
    things.create(tx, "pump-1")
    pending = certificates.register(tx, authority.issue_device()[0], "PENDING_ACTIVATION")
    certificates.attach(tx, "pump-1", pending)
    policies.attach(tx, "p", Target("cert", pending))
    certificates.set_status(tx, pending, "ACTIVE")
    assert not tx.policies_changed


# Policies


def test_policies_keep_five_versions_and_never_reuse_a_number(tx: Tx) -> None:
    policies.create(tx, "p", ALLOW_ALL)
    for _ in range(4):
        policies.create_version(tx, "p", ALLOW_ALL)
    with refused("VersionsLimitExceededException"):
        policies.create_version(tx, "p", ALLOW_ALL)
    policies.delete_version(tx, "p", "5")
    assert policies.create_version(tx, "p", ALLOW_ALL)["policyVersionId"] == "6"


def test_the_default_version_is_kept_and_can_be_moved(tx: Tx) -> None:
    policies.create(tx, "p", ALLOW_ALL)
    other = ALLOW_ALL.replace("iot:*", "iot:Connect")
    policies.create_version(tx, "p", other, set_default=True)
    assert policies.require(tx, "p")["policyDocument"] == other
    assert tx.policies_changed
    with refused("DeleteConflictException"):
        policies.delete_version(tx, "p", "2")
    policies.delete_version(tx, "p", "1")


def test_a_malformed_document_makes_no_policy(tx: Tx) -> None:
    with refused("MalformedPolicyException"):
        policies.create(tx, "p", "{}")
    assert policies.get(tx, "p") is None


def test_an_attached_policy_is_not_deleted(tx: Tx, certificate: str) -> None:
    policies.create(tx, "p", ALLOW_ALL)
    policies.attach(tx, "p", Target("cert", certificate))
    with refused("DeleteConflictException"):
        policies.delete(tx, "p")
    policies.detach(tx, "p", Target("cert", certificate))
    policies.delete(tx, "p")


def test_at_most_ten_policies_a_certificate_and_two_a_group(tx: Tx, certificate: str) -> None:
    groups.create(tx, "g")
    for n in range(11):
        policies.create(tx, f"p{n}", ALLOW_ALL)
    for n in range(10):
        policies.attach(tx, f"p{n}", Target("cert", certificate))
        policies.attach(tx, f"p{n}", Target("cert", certificate))
    with refused("LimitExceededException"):
        policies.attach(tx, "p10", Target("cert", certificate))
    policies.attach(tx, "p0", Target("thinggroup", "g"))
    policies.attach(tx, "p1", Target("thinggroup", "g"))
    with refused("LimitExceededException"):
        policies.attach(tx, "p2", Target("thinggroup", "g"))


def test_targets_are_arns_of_certificates_or_groups(tx: Tx) -> None:
    assert policies.parse_target(names.arn("cert/ab12")) == Target("cert", "ab12")
    assert policies.parse_target(names.arn("thinggroup/g")) == Target("thinggroup", "g")
    with refused("InvalidRequestException", "thing group"):
        policies.parse_target("eu-west-1:cognito-id")


def test_policies_of_all_groups_above_a_thing_apply(tx: Tx, certificate: str) -> None:
    family(tx, "world", "europe")
    things.create(tx, "pump-1")
    groups.add_thing(tx, "europe", "pump-1")
    for name, target in (("w", Target("thinggroup", "world")), ("c", Target("cert", certificate))):
        policies.create(tx, name, ALLOW_ALL)
        policies.attach(tx, name, target)
    assert [policy.name for policy in policies.applied(tx, certificate, "pump-1")] == ["c", "w"]
    assert [policy.name for policy in policies.applied(tx, certificate, None)] == ["c"]
