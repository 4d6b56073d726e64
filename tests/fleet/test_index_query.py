# SPDX-License-Identifier: Apache-2.0
"""The query language, and its plan against a plain reading of it (aws-iot-protocol.md section 8.3)."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgefleet.errors import ApiError
from edgefleet.index import Index, documents, index, query, values
from edgefleet.index.query import And, Between, Equals, Everything, Exists, Like, Not, Or
from edgefleet.store import Store

EXAMPLES = [
    "thingName:my*",
    'thingTypeName:pump AND attributes.site:"plant 4"',
    "attributes.fw:[1.0 TO 2.0}",
    "shadow.reported.stats.battery>70",
    "shadow.reported.engineStarts >= 20000",
    "shadow.hasDelta:true",
    "NOT attributes.model:legacy",
    "shadow.reported.location:* NOT shadow.desired.stats.battery:*",
    "connectivity.connected:false AND connectivity.timestamp:[1700000000000 TO 1700003600000]",
    "connectivity.disconnectReason:CONNECTION_LOST",
    "thingGroupNames:beta",
    "shadow.name.$package.reported.agent.version:1.0.0",
    "attributes.color:(red OR blue)",
    "thingName:(tv* AND -plasma)",
    "-thingName:a",
    "*",
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_of_the_reference_are_queries(text):
    query.parse(text)


def test_juxtaposition_is_and_and_binds_tighter_than_or():
    a, b, c = (Equals(None, one) for one in "abc")
    assert query.parse("a b OR c") == query.parse("(a AND b) OR c") == Or((And((a, b)), c))


def test_a_value_may_be_negative_and_a_word_may_not():
    assert query.parse("shadow.reported.t:-5") == Equals("shadow.reported.t", "-5")
    assert query.parse("-5") == Not(Equals(None, "5"))


def test_escapes_and_quotes_take_the_meaning_of_special_characters_away():
    assert query.parse(r"thingName:a\:b\*") == Equals("thingName", "a:b*")
    assert query.parse(r'thingName:"a \"b\" *"') == Equals("thingName", 'a "b" *')
    assert query.parse(r"attributes.a\:b:c") == Equals("attributes.a:b", "c")


def test_whitespace_around_an_operator_does_not_matter():
    for text in ("shadow.reported.x>=5", "shadow.reported.x >=5", "shadow.reported.x>= 5", "shadow.reported.x  >=  5"):
        assert query.parse(text) == Between("shadow.reported.x", 5.0, None, True, True)


def test_keywords_are_whole_words():
    assert query.parse("ANDROID ORDER NOTE") == And(tuple(Equals(None, one) for one in ("android", "order", "note")))


@pytest.mark.parametrize(
    "text",
    [
        "AND a", "a AND", "a OR", "OR", "NOT", "a AND OR b", "NOT NOT a", "(a", "a)", "()",
        "thingName:", "thingName:()",
        ":a", "a:b:c", "thingName:a:b", "thingName:[a TO b", "thingName:[a b]", "thingName:{a TO}", "a@b", "a#", "a'b",
        "a;b", "a`", "a%", "a/b", "a+b", "a&b", "a!", "a~", "a^2", "a\\",
        '"a', "\ud800", "foo:bar", "registry.version:1",
        "shadow.version:1", "connectivity.foo:1", "attributes:1", "shadow.reported:1", "shadow.reported.x>abc",
        "shadow.reported.x:geo_distance,1,2,15.5km", "thingName:a*b*c*", "a??????", "*a *b", "*" + "a" * 100,
        "shadow.reported.x>1e999", " ", "a" * 1001, " ".join("abcdefghijklm"),
        "(" * 900, "thingName:" + "(a " * 300, "(a OR (b " * 100, "NOT (" * 150 + "a" + ")" * 150 + " b" * 12,
    ],
)  # fmt: skip
def test_what_is_no_query_is_an_invalid_query(text):
    with pytest.raises(ApiError) as error:
        query.parse(text)
    assert (error.value.code, error.value.status) == ("InvalidQueryException", 400)


def test_nesting_is_no_danger():
    assert query.parse("(" * 499 + "a" + ")" * 499) == Equals(None, "a")
    assert query.parse("NOT (" * 150 + "a" + ")" * 150) == Equals(None, "a")
    assert query.parse("thingName:" + "(" * 490 + "a" + ")" * 490) == Equals("thingName", "a")


@given(st.text(alphabet='ab:*?"\\()[]{}<>= -.ANDORT5', max_size=40))
@settings(max_examples=300)
def test_any_text_is_a_query_or_an_invalid_one(text):
    try:
        query.parse(text)
    except ApiError as error:
        assert error.code == "InvalidQueryException"


# A small world in which everything collides: few fields, few values, some of them special characters.
FIELDS = ["attributes.a", "shadow.reported.a", "shadow.reported.a.b", "thingName"]
WORDS = ["a", "A", "ab", "b*", "b?", "[x]", "a]b", "", "1", "1.0", "10", "9", "-5", "1e1", "true", "ä", "Ä", "x\ud7ff"]
simple = st.sampled_from(WORDS) | st.sampled_from([1, 1.0, 9, 10, -5, 0.5, 20000, True, False])
content = st.dictionaries(st.sampled_from(FIELDS), simple | st.lists(simple, max_size=3), max_size=4)
fields = st.none() | st.sampled_from(FIELDS)
words = st.sampled_from(WORDS).map(values.fold)
numbers = st.sampled_from([-5.0, 0.5, 1.0, 9.0, 10.0, 20000.0])
patterns = (
    st.lists(st.sampled_from(["a", "b", "[", "]", "*", "?", "1", "x\ud7ff", *query.Wild]), min_size=1, max_size=4)
    .filter(lambda parts: not all(isinstance(part, str) for part in parts))
    .map(tuple)
)  # fmt: skip
leaves = st.one_of(
    st.just(Everything()),
    st.builds(Exists, fields),
    st.builds(Equals, fields, words),
    st.builds(Like, fields, patterns),
    st.builds(Between, fields, st.none() | numbers, st.none() | numbers, st.booleans(), st.booleans()),
    st.builds(Between, fields, words, st.none() | words, st.booleans(), st.booleans()),
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


def matches(node, found):
    """The meaning of a query for one thing, straight from the reference. found: [(field, JSON value)]."""
    if isinstance(node, And):
        return all(matches(one, found) for one in node.nodes)
    if isinstance(node, Or):
        return any(matches(one, found) for one in node.nodes)
    if isinstance(node, Not):
        return not matches(node.node, found)
    if isinstance(node, Everything):
        return True
    return any(value_matches(node, value) for field, value in found if node.field in (None, field))


def text_of(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value.lower()
    return f"{value:.10g}"


def number_of(value):
    if isinstance(value, bool):
        return None
    try:
        return float(value) if re.fullmatch(r"-?\d+(\.\d+)?([eE]-?\d+)?", str(value)) else None
    except ValueError:
        return None


def value_matches(node, value):
    text = text_of(value)
    if isinstance(node, Exists):
        return True
    if isinstance(node, Equals):
        if text == node.text:
            return True
        return not isinstance(value, str) and number_of(value) is not None and number_of(node.text) == number_of(value)
    if isinstance(node, Like):
        expression = "".join(
            re.escape(part) if isinstance(part, str) else ".*" if part is query.ANY else "." for part in node.parts
        )
        return re.fullmatch(expression, text, re.DOTALL) is not None
    as_text = isinstance(node.low, str) or isinstance(node.high, str)
    own = text if as_text else number_of(value)
    if own is None:
        return False
    above = node.low is None or (own >= node.low if node.with_low else own > node.low)
    below = node.high is None or (own <= node.high if node.with_high else own < node.high)
    return above and below


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("index") / "fleet.db")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(content, max_size=5), tree=trees)
@example(contents=[{"attributes.a": "9"}, {"attributes.a": 9}], tree=Between("attributes.a", 20000.0, None, True, True))
@example(contents=[{"attributes.a": 9}, {"attributes.a": 10}], tree=Between("attributes.a", 9.0, 10.0, False, True))
@example(contents=[{"attributes.a": 9}, {"attributes.a": 10}], tree=Between("attributes.a", 9.0, 10.0, True, False))
@example(contents=[{"attributes.a": "b*"}, {"attributes.a": "b?"}], tree=Like("attributes.a", ("b*", query.ANY)))
@example(contents=[{"attributes.a": "[x]"}, {"attributes.a": "x"}], tree=Like("attributes.a", ("[x]", query.ANY)))
@example(contents=[{"attributes.a": "1.0"}, {"attributes.a": 1}], tree=Equals("attributes.a", "1.0"))
def test_the_plan_finds_what_a_plain_reading_finds(store, contents, tree):
    class Undo(Exception):
        pass

    with pytest.raises(Undo), store.transaction() as tx:
        expected = []
        for n, fields_of_thing in enumerate(contents):
            terms, found = {}, []
            for field, value in fields_of_thing.items():
                for term in documents.flatten(field, value, True):
                    terms[term.field, term.value, term.kind] = term
                found += [(field, one) for one in (value if isinstance(value, list) else [value])]
            index.store(tx, f"t{n}", {}, terms.values())
            if matches(tree, found):
                expected.append(f"t{n}")
        assert [name for name, _ in Index().search(tx, tree, "", 100)] == expected
        assert Index().count(tx, tree) == len(expected)
        raise Undo


def test_the_deepest_legal_query_can_be_planned(store):
    text = "NOT (a " * 11 + "b" + ")" * 11
    with store.reading() as tx:
        Index().search(tx, query.parse(text), "", 10)
