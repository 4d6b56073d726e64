# SPDX-License-Identifier: Apache-2.0
"""The fleet index from registry, shadows and connectivity (aws-iot-protocol.md section 8, Appendix F 25)."""

from __future__ import annotations

import json

import pytest

from edgefleet.errors import ApiError
from edgefleet.index import Index, planner, query
from edgefleet.index.operations import IndexOperations
from edgefleet.registry import groups, things
from edgefleet.shadow import service as shadows
from edgefleet.store import Store

T = 1_700_000_000


class World:
    def __init__(self, path):
        self.store = Store(path / "fleet.db")
        index = Index()
        self.index = index
        self.store.before_commit.append(lambda tx: index.refresh(tx, tx.touched))

    def do(self, work):
        with self.store.transaction() as tx:
            return work(tx)

    def thing(self, name, reported=None, desired=None, attributes=None, shadow=None):
        def work(tx):
            if things.get(tx, name) is None:
                things.create(tx, name, attributes=attributes)
            state = {section: value for section, value in (("reported", reported), ("desired", desired)) if value}
            if state:
                shadows.update(tx, name, shadow, json.dumps({"state": state}).encode(), T)

        self.do(work)

    def connect(self, name, connected=True, reason=None):
        def work(tx):
            tx.execute(
                "INSERT OR REPLACE INTO connectivity (client_id, thing_name, certificate_id, session_id, connected,"
                " timestamp_ms, connected_ms, disconnect_reason, version, keep_alive, clean_session, source_ip,"
                " source_port) VALUES (?, ?, 'c', 's', ?, ?, ?, ?, 0, 60, 1, '10.0.0.1', 5000)",
                (name, name, connected, T * 1000, T * 1000, reason),
            )
            tx.touch(name)

        self.do(work)

    def call(self, operation, **members):
        with self.store.reading() as tx:
            return getattr(IndexOperations(self.index), operation)(tx, **members)

    def find(self, text):
        return [one["thingName"] for one in self.call("search_index", queryString=text)["things"]]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_numbers_compare_as_numbers(world):
    for name, starts in (("a", 9), ("b", 20000), ("c", 100000), ("d", "30000"), ("e", "many")):
        world.thing(name, reported={"engineStarts": starts})
    assert world.find("shadow.reported.engineStarts >= 20000") == ["b", "c", "d"]
    assert world.find("shadow.reported.engineStarts<20000") == ["a"]
    assert world.find("shadow.reported.engineStarts:[9 TO 20000}") == ["a"]
    assert world.find("shadow.reported.engineStarts:20000") == ["b"]


def test_the_query_of_the_readme(world):
    world.thing("a", reported={"firmware": "1.4.2", "engineStarts": 20001})
    world.thing("b", reported={"firmware": "1.5.0", "engineStarts": 20001})
    world.thing("c", reported={"firmware": "1.4.0", "engineStarts": 5})
    assert world.find("shadow.reported.firmware:1.4.* AND shadow.reported.engineStarts >= 20000") == ["a"]


def test_a_search_sees_each_change_of_shadow_registry_and_connection(world):
    world.thing("a", reported={"v": 1})
    world.thing("a", reported={"v": 2})
    assert (world.find("shadow.reported.v:1"), world.find("shadow.reported.v:2")) == ([], ["a"])
    world.do(lambda tx: groups.create(tx, "plant"))
    world.do(lambda tx: groups.create(tx, "hall", parent="plant"))
    world.do(lambda tx: groups.add_thing(tx, "hall", "a"))
    assert world.find("thingGroupNames:plant") == ["a"]
    world.connect("a")
    assert world.find("connectivity.connected:true") == ["a"]
    world.connect("a", False, "CONNECTION_LOST")
    assert world.find("connectivity.disconnectReason:connection_lost") == ["a"]
    world.do(lambda tx: shadows.delete(tx, "a", None, T))
    assert world.find("shadow.reported.v:*") == []
    world.do(lambda tx: groups.remove_thing(tx, "hall", "a"))
    world.do(lambda tx: things.delete(tx, "a"))
    assert world.find("*") == []


def test_a_change_that_fails_leaves_the_index_as_it_was(world):
    world.thing("a", reported={"v": 1})
    with pytest.raises(RuntimeError), world.store.transaction() as tx:
        shadows.update(tx, "a", None, b'{"state":{"reported":{"v":2}}}', T)
        raise RuntimeError
    assert world.find("shadow.reported.v:1") == ["a"]


def test_results_have_the_shape_of_the_service(world):
    world.thing("a", reported={"v": 1}, desired={"v": 2}, attributes={"site": "Plant-4"})
    world.thing("a", reported={"agent": "x"}, shadow="$package")
    world.do(lambda tx: groups.create(tx, "g"))
    world.do(lambda tx: groups.add_thing(tx, "g", "a"))
    world.connect("a")
    (found,) = world.call("search_index", queryString="thingName:A")["things"]
    shadow = json.loads(found.pop("shadow"))
    thing_id = found.pop("thingId")
    assert thing_id
    assert found == {
        "thingName": "a",
        "thingGroupNames": ["g"],
        "attributes": {"site": "Plant-4"},
        "connectivity": {"connected": True, "timestamp": T * 1000, "keepAliveDuration": 60, "cleanSession": True,
                         "clientId": "a"},
    }  # fmt: skip
    assert (shadow["reported"], shadow["desired"], shadow["delta"]) == ({"v": 1}, {"v": 2}, {"v": 2})
    assert (shadow["hasDelta"], shadow["version"]) == (True, 1)
    assert shadow["metadata"]["reported"] == {"v": {"timestamp": T}}
    assert shadow["name"]["$package"]["reported"] == {"agent": "x"}


def test_every_field_family_is_searchable(world):
    reported = {"s": {"b": 80}, "list": ["X", 2], "on": True, "deep": [{"a": 1}]}
    world.thing("a", reported=reported, desired={"s": {"b": 1}}, attributes={"site": "Plant-4", "n": "12"})
    world.thing("a", reported={"agent": {"version": "1.0.0"}}, shadow="$package")
    for text in (
        'attributes.site:"plant-4"', "attributes.n>9", "shadow.reported.s.b>70", "shadow.reported.list:x",
        "shadow.reported.list:2", "shadow.reported.on:true", "shadow.hasDelta:true", "shadow.delta.s.b:1",
        f"shadow.metadata.reported.s.b.timestamp:{T}", "shadow.name.$package.reported.agent.version:1.0.0",
        "shadow.name.$package.hasDelta:false", "connectivity.connected:false", "plant-4", "thingId:*", "80",
    ):  # fmt: skip
        assert world.find(text) == ["a"], text
    for text in ("shadow.reported.deep:*", "shadow.reported.s:*", "attributes.Site:*", "shadow.reported.s.b:8"):
        assert world.find(text) == [], text


def test_a_term_without_field_does_not_search_connectivity(world):
    world.thing("a")
    world.connect("a", False, "CONNECTION_LOST")
    assert world.find("CONNECTION_LOST") == []


def test_a_shadow_without_thing_is_not_indexed(world):
    world.do(lambda tx: shadows.update(tx, "ghost", None, b'{"state":{"reported":{"v":1}}}', T))
    assert world.find("*") == []


def test_pages_go_by_name_and_survive_deletions(world):
    for n in range(7):
        world.thing(f"t{n}")
    first = world.call("search_index", queryString="*", maxResults=3)
    assert [one["thingName"] for one in first["things"]] == ["t0", "t1", "t2"]
    for name in ("t2", "t3"):
        world.do(lambda tx, name=name: things.delete(tx, name))
    second = world.call("search_index", queryString="*", maxResults=3, nextToken=first["nextToken"])
    assert [one["thingName"] for one in second["things"]] == ["t4", "t5", "t6"]
    assert "nextToken" not in second


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"queryString": "foo:bar"}, "InvalidQueryException"),
        ({"queryString": ""}, "InvalidRequestException"),
        ({"queryString": "*", "indexName": "AWS_ThingGroups"}, "ResourceNotFoundException"),
        ({"queryString": "*", "maxResults": 501}, "InvalidRequestException"),
        ({"queryString": "*", "nextToken": "x"}, "InvalidRequestException"),
        ({"queryString": "*", "queryVersion": "1"}, "InvalidRequestException"),
    ],
)
def test_bad_searches_are_typed(world, members, code):
    with pytest.raises(ApiError) as error:
        world.call("search_index", **members)
    assert error.value.code == code


def test_rebuilding_gives_the_same_index(world):
    world.thing("a", reported={"v": [1, "X"]}, attributes={"site": "P"})
    world.thing("b", reported={"v": 1}, shadow="n")

    def dump(tx):
        return [tuple(row) for row in tx.all(
            "SELECT thing_name, document, field, value, shown, number, kind, anywhere FROM index_terms"
            " JOIN index_things ON id = thing ORDER BY thing_name, field, value, kind")]  # fmt: skip

    before = world.do(dump)
    world.do(lambda tx: tx.execute("DELETE FROM index_terms WHERE field LIKE 'shadow%'"))
    assert world.do(world.index.rebuild) == 2
    assert world.do(dump) == before


def test_statistics_of_numbers_booleans_and_strings(world):
    for name, value, on in (("a", 2, True), ("b", 4, True), ("c", 6, False), ("d", 8, True)):
        world.thing(name, reported={"n": value, "on": on, "s": f"x{value}"})

    def statistics(field):
        return world.call("get_statistics", queryString="*", aggregationField=field)["statistics"]

    assert statistics("shadow.reported.n") == {
        "count": 4, "average": 5.0, "sum": 20.0, "minimum": 2.0, "maximum": 8.0, "sumOfSquares": 120.0, "variance": 5.0,
        "stdDeviation": 5**0.5,
    }  # fmt: skip
    assert statistics("shadow.reported.on") == {"count": 4, "average": 0.75, "sum": 3.0, "minimum": 0.0, "maximum": 1.0}
    assert statistics("shadow.reported.s") == {"count": 4}
    assert statistics("registry.version")["count"] == 4
    with pytest.raises(ApiError) as error:
        statistics("nonsense")
    assert error.value.code == "InvalidAggregationException"


def test_percentiles_cardinality_and_buckets(world):
    for n in range(1, 6):
        world.thing(f"t{n}", reported={"n": n}, attributes={"site": "A" if n < 4 else "b"})
    found = world.call("get_percentiles", queryString="*", aggregationField="shadow.reported.n", percents=[0, 50, 100])
    assert [one["value"] for one in found["percentiles"]] == [1, 3, 5]
    assert world.call("get_percentiles", queryString="thingName:no", aggregationField="shadow.reported.n") == {
        "percentiles": []
    }
    assert world.call("get_cardinality", queryString="*", aggregationField="attributes.site") == {"cardinality": 2}
    buckets = {"termsAggregation": {"maxBuckets": 1}}
    assert world.call("get_buckets_aggregation", queryString="thingName:t*", aggregationField="attributes.site",
                      bucketsAggregationType=buckets) == {
        "totalCount": 5, "buckets": [{"keyValue": "A", "count": 3}],
    }  # fmt: skip


def test_the_index_describes_itself(world):
    world.thing("a", reported={"v": 1}, shadow="n")
    assert world.call("describe_index", indexName="AWS_Things")["indexStatus"] == "ACTIVE"
    assert world.call("list_indices") == {"indexNames": ["AWS_Things"]}
    config = world.call("get_indexing_configuration")["thingIndexingConfiguration"]
    assert config["filter"] == {"namedShadowNames": ["n"]}


def test_connectivity_data_of_a_thing(world):
    world.thing("a")
    unknown = world.call("get_thing_connectivity_data", thingName="a")
    assert unknown == {"thingName": "a", "connected": False, "disconnectReason": "UNKNOWN"}
    world.connect("a")
    known = world.call("get_thing_connectivity_data", thingName="a", includeSocketInformation=True)
    assert (known["connected"], known["timestamp"], known["disconnectReason"], known["sourceIp"]) == (
        True, T, "NONE", "10.0.0.1",
    )  # fmt: skip
    with pytest.raises(ApiError):
        world.call("get_thing_connectivity_data", thingName="none")


@pytest.mark.parametrize(
    ("text", "using"),
    [
        ("shadow.reported.n>5", "index_terms_by_number"),
        ("attributes.a:x", "PRIMARY KEY"),
        ("attributes.a:x*", "PRIMARY KEY"),
        ("x", "index_terms_by_value"),
    ],
)
def test_terms_are_looked_up_in_an_index(world, text, using):
    sql, parameters = planner.plan(query.parse(text))
    with world.store.reading() as tx:
        plan = " ".join(row["detail"] for row in tx.all(f"EXPLAIN QUERY PLAN {sql} SELECT * FROM matching", parameters))
    assert using in plan
