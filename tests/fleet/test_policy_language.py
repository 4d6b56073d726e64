# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet import names
from edgefleet.errors import ApiError
from edgefleet.registry import globs
from edgefleet.registry.conditions import Context
from edgefleet.registry.policy_language import Bound, Decision, parse

ALLOWED, EXPLICIT, IMPLICIT = Decision.ALLOWED, Decision.EXPLICIT_DENY, Decision.IMPLICIT_DENY
THING: Context = {
    "iot:clientid": "pump-1",
    "aws:sourceip": "10.0.0.7",
    "iot:connection.thing.thingname": "pump-1",
    "iot:connection.thing.thingtypename": "pump",
    "iot:connection.thing.isattached": "true",
    "iot:connection.thing.attributes[Site]": "north",
    "iot:connectattributes": [],
}


def statement(effect: str = "Allow", action: Any = "iot:Publish", resource: Any = "topic/a", **more: Any) -> Any:
    listed = resource if isinstance(resource, list) else [resource]
    resources = [text if text == "*" else names.arn(text) for text in listed]
    return {"Effect": effect, "Action": action, "Resource": resources, **more}


def document(*statements: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def decide(
    *statements: Any, action: str = "iot:Publish", resource: str = "topic/a", context: Context = THING
) -> Decision:
    return Bound([("p", parse(document(*statements)))], context).decide(action, names.arn(resource))


# Decisions


def test_nothing_is_allowed_without_a_policy() -> None:
    assert Bound([], THING).decide("iot:Publish", names.arn("topic/a")) is IMPLICIT


def test_allow_covers_its_action_and_resource_only() -> None:
    assert decide(statement()) is ALLOWED
    assert decide(statement(), action="iot:Receive") is IMPLICIT
    assert decide(statement(), resource="topic/b") is IMPLICIT


def test_an_explicit_deny_wins_whatever_the_order() -> None:
    deny = statement("Deny", "iot:*", "*")
    assert decide(statement(), deny) is EXPLICIT
    assert decide(deny, statement()) is EXPLICIT


def test_a_deny_in_another_policy_wins_too() -> None:
    policies = [("allow", parse(document(statement()))), ("deny", parse(document(statement("Deny"))))]
    bound = Bound(policies, THING)
    assert bound.explain("iot:Publish", names.arn("topic/a")) == (EXPLICIT, ["allow"], ["deny"])


def test_actions_ignore_case_and_know_wildcards() -> None:
    assert decide(statement(action="IOT:publish")) is ALLOWED
    assert decide(statement(action=["iot:Connect", "iot:Pub*"])) is ALLOWED
    assert decide(statement(action="*")) is ALLOWED
    assert decide(statement(action="iot:Publis?")) is ALLOWED


def test_resources_keep_case() -> None:
    assert decide(statement(resource="topic/A")) is IMPLICIT


@pytest.mark.parametrize(
    ("pattern", "topic", "decision"),
    [
        ("topic/a/*", "topic/a/b/c", ALLOWED),
        ("topic/a/*", "topic/a/", ALLOWED),
        ("topic/a/*", "topic/a", IMPLICIT),
        ("topic/*/c", "topic/a/b/c", ALLOWED),
        ("topic/a?c", "topic/a/c", ALLOWED),
        ("topic/a?c", "topic/ac", IMPLICIT),
        ("topic/+/c", "topic/a/c", IMPLICIT),
        ("topicfilter/a/+/#", "topicfilter/a/+/#", ALLOWED),
        ("topic/$aws/things/x/*", "topic/$aws/things/x/jobs/get", ALLOWED),
        ("topic/a${*}b", "topic/a*b", ALLOWED),
        ("topic/a${*}b", "topic/axb", IMPLICIT),
        ("topic/${$}{x}", "topic/${x}", ALLOWED),
    ],
)
def test_wildcards_of_resources(pattern: str, topic: str, decision: Decision) -> None:
    assert decide(statement(resource=pattern), resource=topic) is decision


def test_a_resource_of_another_account_does_not_match() -> None:
    other = {"Effect": "Allow", "Action": "iot:Publish", "Resource": "arn:aws:iot:eu-west-1:123456789012:topic/a"}
    anywhere = {**other, "Resource": "arn:aws:iot:*:*:topic/a"}
    assert decide(other) is IMPLICIT
    assert decide(anywhere) is ALLOWED


# Variables


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("iot:Connection.Thing.ThingName", "pump-1"),
        ("IOT:connection.thing.THINGNAME", "pump-1"),
        ("iot:Connection.Thing.ThingTypeName", "pump"),
        ("iot:Connection.Thing.Attributes[Site]", "north"),
        ("iot:ClientId", "pump-1"),
        ("aws:SourceIp", "10.0.0.7"),
    ],
)
def test_variables_stand_for_facts_of_the_connection(variable: str, value: str) -> None:
    assert decide(statement(resource=f"topic/${{{variable}}}/up"), resource=f"topic/{value}/up") is ALLOWED
    assert decide(statement(resource=f"topic/${{{variable}}}/up"), resource="topic/other/up") is IMPLICIT


def test_names_of_thing_attributes_keep_case() -> None:
    assert (
        decide(statement(resource="topic/${iot:Connection.Thing.Attributes[site]}"), resource="topic/north") is IMPLICIT
    )


def test_a_statement_with_an_unresolved_variable_never_matches() -> None:
    unresolved = "topic/${iot:Connection.Thing.ThingName}"
    nobody: Context = {"iot:clientid": "x"}
    for topic in ("topic/", unresolved, "topic/a"):
        assert decide(statement(resource=[unresolved, "topic/a"]), resource=topic, context=nobody) is IMPLICIT
    assert decide(statement(), statement("Deny", resource=[unresolved, "topic/a"]), context=nobody) is ALLOWED


def test_wildcards_in_values_are_literal() -> None:
    tricky: Context = {"iot:clientid": "*"}
    allow = statement(resource="topic/${iot:ClientId}/up")
    assert decide(allow, resource="topic/*/up", context=tricky) is ALLOWED
    assert decide(allow, resource="topic/other/up", context=tricky) is IMPLICIT


def test_values_are_not_expanded_again() -> None:
    tricky: Context = {"iot:clientid": "${aws:SourceIp}", "aws:sourceip": "10.0.0.7"}
    allow = statement(resource="topic/${iot:ClientId}")
    assert decide(allow, resource="topic/10.0.0.7", context=tricky) is IMPLICIT


# Conditions


def conditional(operator: str, key: str, value: Any) -> Any:
    return statement(Condition={operator: {key: value}})


@pytest.mark.parametrize(
    ("operator", "key", "value", "decision"),
    [
        ("StringEquals", "iot:ClientId", "pump-1", ALLOWED),
        ("StringEquals", "iot:ClientId", ["x", "pump-1"], ALLOWED),
        ("StringEquals", "iot:ClientId", "pump-*", IMPLICIT),
        ("StringEquals", "iot:ClientId", "${iot:Connection.Thing.ThingName}", ALLOWED),
        ("StringEquals", "iot:ClientId", "${iot:Connection.Thing.Attributes[None]}", IMPLICIT),
        ("StringEqualsIgnoreCase", "iot:ClientId", "PUMP-1", ALLOWED),
        ("StringNotEquals", "iot:ClientId", "pump-2", ALLOWED),
        ("StringNotEquals", "iot:ClientId", ["pump-2", "pump-1"], IMPLICIT),
        ("StringLike", "iot:ClientId", "pump-?", ALLOWED),
        ("StringNotLike", "iot:ClientId", "pump-*", IMPLICIT),
        ("StringEquals", "iot:Connection.Thing.Attributes[Site]", "north", ALLOWED),
        ("StringEquals", "iot:Connection.Thing.Attributes[None]", "north", IMPLICIT),
        ("StringNotEquals", "iot:Connection.Thing.Attributes[None]", "north", ALLOWED),
        ("StringEqualsIfExists", "iot:Connection.Thing.Attributes[None]", "north", ALLOWED),
        ("Bool", "iot:Connection.Thing.IsAttached", "true", ALLOWED),
        ("Bool", "iot:Connection.Thing.IsAttached", [False], IMPLICIT),
        ("IpAddress", "aws:SourceIp", "10.0.0.0/8", ALLOWED),
        ("IpAddress", "aws:SourceIp", ["192.168.0.0/16", "fe80::/10"], IMPLICIT),
        ("NotIpAddress", "aws:SourceIp", "10.0.0.7", IMPLICIT),
    ],
)
def test_conditions(operator: str, key: str, value: Any, decision: Decision) -> None:
    assert decide(conditional(operator, key, value)) is decision


def test_all_conditions_must_hold() -> None:
    both = statement(Condition={"StringEquals": {"iot:ClientId": "pump-1", "aws:SourceIp": "10.0.0.8"}})
    assert decide(both) is IMPLICIT


@pytest.mark.parametrize(
    ("operator", "asked", "decision"),
    [
        ("ForAllValues:StringEquals", [], ALLOWED),
        ("ForAllValues:StringEquals", ["PersistentConnect"], ALLOWED),
        ("ForAllValues:StringEquals", ["PersistentConnect", "LastWill"], IMPLICIT),
        ("ForAnyValue:StringEquals", [], IMPLICIT),
        ("ForAnyValue:StringEquals", ["LastWill", "PersistentConnect"], ALLOWED),
    ],
)
def test_connect_attributes(operator: str, asked: list[str], decision: Decision) -> None:
    only = conditional(operator, "iot:ConnectAttributes", ["PersistentConnect"])
    assert decide(only, context={**THING, "iot:connectattributes": asked}) is decision


# Documents that are refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"Version":"2012-10-17"}', "Statement: must be a list"),
        ('{"Version":"2012-10-17","Statement":[]}', "Statement: must be a list"),
        ('{"Version":"2012-10-17","Statement":["x"]}', r"Statement\[0\]: must be an object"),
        ('{"Version":"2008-10-17","Statement":[]}', "Version"),
        ('{"Statement":[]}', "Version"),
        ('{"Version":"2012-10-17","Version":"2012-10-17","Statement":[]}', "'Version' is given twice"),
        ('{"Version":"2012-10-17","Statements":[]}', "Statements: is not a member"),
        (document(statement(effect="allow")), r"Statement\[0\]: Effect"),
        (
            document(statement(), statement(Sid="two", action="publish")),
            r"Statement\[1\] \(Sid 'two'\): Action: 'publish'",
        ),
        (document(statement(action=[])), "Action: must be a string or"),
        (document({**statement(), "Resource": "topic/a"}), "Resource: 'topic/a' must be"),
        (document(statement(resource="topic/${iot:ClientId")), "has no name or no '}'"),
        (document(statement(resource="topic/${}")), "has no name or no '}'"),
        (document({**statement(), "NotAction": "iot:Publish"}), "NotAction: is not a member"),
        (document({**statement(), "Principal": "*"}), "Principal: is not a member"),
        (document(statement(Condition="x")), "Condition: must be an object"),
        (
            document(conditional("StringMatches", "iot:ClientId", "x")),
            "StringMatches.iot:ClientId: unknown condition operator",
        ),
        (document(conditional("DateLessThan", "aws:CurrentTime", "2030-01-01")), "unknown condition operator"),
        (document(conditional("ForSomeValues:StringEquals", "iot:ClientId", "x")), "unknown condition operator"),
        (document(conditional("StringEquals", "iot:ConectAttributes", "x")), "unknown condition key"),
        (document(conditional("StringEquals", "iot:ConnectAttributes", "x")), "ForAllValues"),
        (document(conditional("StringEquals", "iot:ClientId", 7)), "values must be strings"),
        (document(conditional("StringEquals", "iot:ClientId", [])), "at least one value"),
        (document(conditional("IpAddress", "aws:SourceIp", "10.0.0.0/99")), "10.0.0.0/99"),
        (document(statement(Sid="x" * 2048)), "at most 2048"),
        ("[" * 100_000, "characters"),
        ('{"Version":' + "[" * 500, "nested"),
    ],
)
def test_a_malformed_document_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        parse(text)
    assert (caught.value.code, caught.value.status) == ("MalformedPolicyException", 400)


def test_white_space_does_not_count() -> None:
    parse(json.dumps(json.loads(document(statement())), indent=800))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["Allow", "iot:*", "*", "arn:x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Version", "Statement", "Effect", "Action", "Resource", "Condition", "StringLike", "x"]),
            inner,
            max_size=5,
        )
    ),
)


@given(_JSON)
def test_any_json_is_read_or_refused_as_malformed(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"Version": "2012-10-17", "Statement": value})):
        try:
            parse(text)
        except ApiError as error:
            assert error.code == "MalformedPolicyException"


# The matcher


def _reference(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(c) or re.escape(c) for c in pattern), re.DOTALL)


@given(pattern=st.text("ab*?", max_size=12), text=st.text("ab", max_size=14))
def test_the_matcher_agrees_with_a_regular_expression(pattern: str, text: str) -> None:
    assert globs.Glob(globs.parse(pattern)).matches(text) is (_reference(pattern).fullmatch(text) is not None)


@given(st.text())
def test_a_value_matches_only_itself(value: str) -> None:
    bound = Bound([("p", parse(document(statement(resource="topic/${iot:ClientId}"))))], {"iot:clientid": value})
    assert bound.decide("iot:Publish", names.arn(f"topic/{value}")) is ALLOWED
    assert bound.decide("iot:Publish", names.arn(f"topic/{value}x")) is IMPLICIT


@given(st.lists(st.sampled_from(["topic/a", "topic/b", "topic/*", "topic/?"]), min_size=1, max_size=8), st.booleans())
def test_adding_a_matching_deny_always_denies(resources: list[str], first: bool) -> None:
    allows = [statement(resource=resource) for resource in resources]
    deny = statement("Deny", resource="topic/a")
    assert decide(*([deny, *allows] if first else [*allows, deny])) is EXPLICIT


@pytest.mark.parametrize("pattern", ["*a" * 900 + "b", "*a?" * 600 + "b", "?*" * 900 + "b"])
def test_no_pattern_makes_matching_slow(pattern: str) -> None:
    """A backtracking matcher needs longer than the universe for these."""
    glob = globs.Glob(globs.parse(pattern))
    start = time.perf_counter()
    for length in (256, 2048, 20_000):
        assert not glob.matches("a" * length)
    assert time.perf_counter() - start < 2
