# SPDX-License-Identifier: Apache-2.0
"""Topic rules and routing, without a broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent import topics
from edgefleet.broker import rules
from edgefleet.broker.limits import Limits
from edgefleet.broker.router import Router
from edgefleet.broker.rules import Kind

LIMITS = Limits()
levels = st.sampled_from(["a", "b", "", "$aws", "things"])
names = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.tuples(st.lists(levels | st.just("+"), min_size=1, max_size=4), st.booleans())
    .map(lambda pair: "/".join(pair[0] + (["#"] if pair[1] else [])))
    .filter(bool)
)
filters = filters | st.just("#")


@given(st.lists(st.tuples(filters, st.integers(0, 4), st.integers(0, 1)), max_size=12), names)
def test_router_agrees_with_matching_one_by_one(subscriptions, topic) -> None:
    router: Router[int] = Router()
    table: dict[tuple[str, int], int] = {}
    for name, subscriber, qos in subscriptions:
        router.add(name, subscriber, qos)
        table[name, subscriber] = qos
    expected: dict[int, int] = {}
    for (name, subscriber), qos in table.items():
        if topics.matches(name, topic):
            expected[subscriber] = max(qos, expected.get(subscriber, 0))
    assert router.match(topic) == expected


@given(st.lists(st.tuples(filters, st.integers(0, 2)), max_size=12), names)
def test_router_is_empty_again_after_removing_everything(subscriptions, topic) -> None:
    router: Router[int] = Router()
    for name, subscriber in subscriptions:
        router.add(name, subscriber, 1)
    for name, subscriber in subscriptions:
        router.remove(name, subscriber)
    assert router.match(topic) == {}
    assert router._root.empty() and not router._exact


def test_number_sign_does_not_match_its_parent() -> None:
    router: Router[str] = Router()
    router.add("a/#", "me", 1)
    assert router.match("a") == {}
    assert router.match("a/b") == {"me": 1}


@pytest.mark.parametrize("name", ["#", "+/things/x/shadow/get", "+/#"])
def test_leading_wildcards_do_not_see_reserved_topics(name) -> None:
    router: Router[str] = Router()
    router.add(name, "me", 1)
    assert router.match("$aws/things/x/shadow/get") == {}


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/things/x/jobs/get",
        "$aws/things/x/jobs/start-next",
        "$aws/things/x/jobs/$next/get",
        "$aws/things/x/jobs/notify/get",  # a job called "notify"
        "$aws/things/x/shadow/update",
        "$aws/things/x/shadow/name/n/get",
        "$aws/things/x/streams/s/get/cbor",
        "$aws/things/x/defender/metrics/json",
        "$aws/rules/r",
        "$aws/rules/r/a/b",
        "$aws/certificates/create/json",
        "$aws/certificates/create-from-csr/cbor",
        "$aws/provisioning-templates/T/provision/json",
        "$aws/commands/things/x/executions/e/response/json",
        "$aws/device_location/x/get_position_estimate",
    ],
)
def test_requests_a_client_may_publish(topic) -> None:
    assert rules.publish_kind(topic) is Kind.RESERVED


@pytest.mark.parametrize(
    "topic",
    [
        "$SYS/x",
        "$aws",
        "$aws/things",
        "$aws/things/x",
        "$aws/things//jobs/get",
        "$aws/rules",
        "$aws/rules/",
        "$aws/events/presence/connected/x",
        "$aws/things/x/jobs/notify",
        "$aws/things/x/jobs/notify-next",
        "$aws/things/x/jobs/notify-namespace-n",
        "$aws/things/x/jobs/get/accepted",
        "$aws/things/x/jobs/j/update/rejected",
        "$aws/things/x/jobs/j/namespace-n/get/accepted",
        "$aws/things/x/defender/metrics/json/accepted",
        "$aws/things/x/streams/s/data/json",
        "$aws/things/x/streams/s/description/cbor",
        "$aws/things/x/streams/s/rejected/json",
        "$aws/certificates/create/json/accepted",
        "$aws/certificates/create/xml",
        "$aws/provisioning-templates/T/provision/json/accepted",
        "$share/g/a",
    ],
)
def test_reserved_topics_a_client_may_not_publish(topic) -> None:
    assert rules.publish_kind(topic) is Kind.FORBIDDEN


@pytest.mark.parametrize("topic", ["a", "a/b", "aws/things/x/jobs/notify", "/"])
def test_ordinary_topics(topic) -> None:
    assert rules.publish_kind(topic) is Kind.ORDINARY


@pytest.mark.parametrize(
    ("topic_filter", "allowed"),
    [
        ("a/+/#", True),
        ("#", True),
        ("$aws/things/+/jobs/#", True),
        ("$aws/things/x/jobs/notify-next", True),
        ("$aws/events/#", True),
        ("$aws/certificates/create/json/+", True),
        ("$aws/certificates/create-from-csr/json/accepted", True),
        ("$aws/provisioning-templates/T/provision/json/rejected", True),
        ("$aws/commands/things/x/executions/+/request/json", True),
        ("$aws/#", False),
        ("$aws/+/x/jobs/#", False),
        ("$aws/certificates/create/json", False),
        ("$aws/rules/r/x", False),
        ("$SYS/#", False),
        ("$share/g/a", False),
    ],
)
def test_filters_a_client_may_subscribe_to(topic_filter, allowed) -> None:
    assert rules.may_subscribe(topic_filter) is allowed


@pytest.mark.parametrize("bad", ["", "a/#/b", "a#", "a/b+", "+a", "##"])
def test_illegal_filters(bad) -> None:
    assert rules.filter_problem(bad, LIMITS) is not None


@pytest.mark.parametrize("bad", ["", "a/+", "#", "a#b"])
def test_illegal_topics(bad) -> None:
    assert rules.topic_problem(bad, LIMITS) is not None


def test_topics_have_at_most_256_bytes() -> None:
    assert rules.topic_problem("é" * 128, LIMITS) is None
    assert rules.topic_problem("é" * 128 + "x", LIMITS) == "more than 256 bytes"


def test_topics_have_at_most_seven_slashes() -> None:
    assert rules.topic_problem("1/2/3/4/5/6/7/8", LIMITS) is None
    assert rules.topic_problem("1/2/3/4/5/6/7/8/9", LIMITS) == "more than 7 slashes"


def test_the_prefix_of_basic_ingest_does_not_count_as_slashes() -> None:
    assert rules.topic_problem("$aws/rules/r/1/2/3/4/5/6/7/8", LIMITS) is None
    assert rules.topic_problem("$aws/rules/r/1/2/3/4/5/6/7/8/9", LIMITS) == "more than 7 slashes"
