# SPDX-License-Identifier: Apache-2.0
"""Uploads by Basic Ingest: bundles in parts, whatever the order, repeats and restarts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagent import topics
from edgefleet.artifacts import uploads
from edgefleet.artifacts.objects import Objects
from edgefleet.artifacts.uploads import BUCKET, Uploads
from edgefleet.messages import Request
from edgefleet.store import Store


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1_800_000_000.0
        self.restart()

    def restart(self) -> None:
        self.store = Store(self.folder / "fleet.db")
        self.objects = Objects(self.folder / "objects")
        self.uploads = Uploads(self.objects, lambda: self.now)

    def send(self, bundle: str, part: int, parts: int, data: bytes, thing: str = "esp32-1") -> bool:
        return self.send_topic(topics.upload(thing, bundle, part, parts), data)

    def send_topic(self, topic: str, data: bytes) -> bool:
        with self.store.transaction() as tx:
            return self.uploads.handle(tx, Request(topic, data, "esp32-1", "c" * 64))

    @property
    def stored(self) -> dict[str, bytes]:
        return {key: self.objects.get(BUCKET, key) for key, _, _ in self.objects.list(BUCKET)}

    def rows(self, table: str) -> int:
        with self.store.reading() as tx:
            return int(tx.value(f"SELECT count(*) FROM {table}"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_bundle_of_one_part_becomes_an_object(world: World) -> None:
    assert world.send("job-1", 0, 1, b"hello")
    assert world.stored == {"uploads/esp32-1/job-1": b"hello"}


def test_nothing_is_visible_before_the_last_part(world: World) -> None:
    world.send("job-1", 0, 2, b"a")
    assert world.stored == {}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    parts=st.lists(st.binary(max_size=20), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    repeats=st.lists(st.integers(0, 5), max_size=6),
)
def test_order_and_repetition_of_parts_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], order: object, repeats: list[int]
) -> None:
    world = World(tmp_path_factory.mktemp("uploads"))
    sequence = [*range(len(parts)), *(n % len(parts) for n in repeats)]
    order.shuffle(sequence)  # type: ignore[attr-defined]
    for n in sequence:
        world.send("b", n, len(parts), parts[n])
    assert world.stored == {"uploads/esp32-1/b": b"".join(parts)}


def test_parts_survive_a_restart(world: World) -> None:
    world.send("b", 0, 2, b"first ")
    world.store.close()
    world.restart()
    world.send("b", 1, 2, b"second")
    assert world.stored == {"uploads/esp32-1/b": b"first second"}


def test_a_part_delivered_again_after_completion_begins_nothing_new(world: World) -> None:
    world.send("b", 0, 2, b"x")
    world.send("b", 1, 2, b"y")
    world.send("b", 1, 2, b"y")
    with world.store.reading() as tx:
        assert [tuple(row) for row in tx.all("SELECT bundle, complete FROM upload_bundle")] == [("b", 1)]
    assert world.stored == {"uploads/esp32-1/b": b"xy"}


def test_a_new_upload_under_an_old_name_replaces_the_object_when_complete(world: World) -> None:
    world.send("b", 0, 1, b"old")
    world.send("b", 0, 2, b"new ")
    assert world.stored == {"uploads/esp32-1/b": b"old"}
    world.send("b", 1, 2, b"one")
    assert world.stored == {"uploads/esp32-1/b": b"new one"}


def test_the_data_of_a_complete_bundle_leaves_the_database(world: World) -> None:
    world.send("b", 0, 1, b"x" * 1000)
    with world.store.reading() as tx:
        assert tx.value("SELECT data FROM upload_part") is None


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("$aws/rules/edgeagent_upload/esp32-1/b/0/0", "1 to 256 parts"),
        ("$aws/rules/edgeagent_upload/esp32-1/b/0/257", "1 to 256 parts"),
        ("$aws/rules/edgeagent_upload/esp32-1/b/2/2", "no such part"),
        ("$aws/rules/edgeagent_upload/esp32-1/b/-1/2", "thing/bundle/part/parts"),
        ("$aws/rules/edgeagent_upload/esp32-1/../0/1", "thing/bundle/part/parts"),
        ("$aws/rules/edgeagent_upload/esp32-1/.b/0/1", "thing/bundle/part/parts"),
        ("$aws/rules/edgeagent_upload/esp 32/b/0/1", "thing/bundle/part/parts"),
        ("$aws/rules/edgeagent_upload/esp32-1/b/0/1/extra", "thing/bundle/part/parts"),
        ("$aws/rules/edgeagent_upload/", "thing/bundle/part/parts"),
    ],
)
def test_what_is_wrong_is_logged_and_dropped(
    world: World, caplog: pytest.LogCaptureFixture, topic: str, reason: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert world.send_topic(topic, b"x")
    assert reason in caplog.text
    assert world.stored == {}
    assert world.rows("upload_bundle") == 0


def test_another_rule_is_not_ours(world: World) -> None:
    assert not world.send_topic("$aws/rules/other/esp32-1/b/0/1", b"x")


def test_a_part_that_disagrees_on_the_number_of_parts_is_dropped(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.send("b", 0, 2, b"a")
    world.send("b", 1, 3, b"?")
    assert "begun with 2 parts" in caplog.text
    world.send("b", 1, 2, b"b")
    assert world.stored == {"uploads/esp32-1/b": b"ab"}


def test_a_part_and_a_bundle_have_a_largest_size(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.send("part", 0, 1, bytes(uploads.PART_BYTES + 1))
    assert "at most 131072 bytes" in caplog.text
    for n in range(uploads.BUNDLE_BYTES // uploads.PART_BYTES):
        world.send("bundle", n, 33, bytes(uploads.PART_BYTES))
    world.send("bundle", 32, 33, b"x")
    assert "at most 4194304 bytes" in caplog.text
    assert world.stored == {}


def test_a_thing_that_never_finishes_keeps_only_its_latest_bundles(world: World) -> None:
    for n in range(20):
        world.now += 1
        world.send(f"b{n:02}", 0, 2, b"x")
    with world.store.reading() as tx:
        names = [row["bundle"] for row in tx.all("SELECT bundle FROM upload_bundle ORDER BY bundle")]
    assert names == ["b16", "b17", "b18", "b19"]
    assert world.rows("upload_part") == 4


def test_unfinished_and_remembered_bundles_expire(world: World) -> None:
    world.send("unfinished", 0, 2, b"x")
    world.send("finished", 0, 1, b"x")
    world.now += uploads.INCOMPLETE_S + 1
    world.send("other", 0, 1, b"x")
    assert world.rows("upload_bundle") == 2
    world.now += uploads.REMEMBERED_S + 1
    world.send("last", 0, 1, b"x")
    assert world.rows("upload_bundle") == 1
