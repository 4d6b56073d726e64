# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.artifacts.objects import Objects
from edgefleet.errors import ApiError


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


def test_an_object_is_read_back(objects: Objects) -> None:
    objects.put("bulk", "in/a b.json", b"one")
    assert objects.get("bulk", "in/a b.json") == b"one"
    assert objects.size("bulk", "in/a b.json") == 3


def test_a_stream_is_stored(objects: Objects) -> None:
    objects.put_stream("bulk", "k", io.BytesIO(b"from a stream"))
    assert objects.get("bulk", "k") == b"from a stream"


def test_put_replaces(objects: Objects) -> None:
    objects.put("bulk", "k", b"one")
    objects.put("bulk", "k", b"two")
    assert objects.get("bulk", "k") == b"two"


def test_an_object_is_a_plain_file_an_operator_finds(objects: Objects, tmp_path: Path) -> None:
    objects.put("bulk", "in/k", b"x")
    assert (tmp_path / "objects" / "bulk" / "in" / "k").read_bytes() == b"x"


def test_a_missing_object_is_no_such_key(objects: Objects) -> None:
    with pytest.raises(ApiError) as caught:
        objects.get("bulk", "absent")
    assert (caught.value.code, caught.value.status) == ("NoSuchKey", 404)


def test_a_write_that_fails_leaves_the_old_object_and_no_rest(objects: Objects, tmp_path: Path) -> None:
    objects.put("bulk", "k", b"old")
    with pytest.raises(RuntimeError), objects.writing("bulk", "k") as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert objects.get("bulk", "k") == b"old"
    assert list((tmp_path / "objects" / "_incoming").iterdir()) == []


def test_old_rests_of_a_crash_are_removed_at_the_start(tmp_path: Path) -> None:
    incoming = tmp_path / "_incoming"
    incoming.mkdir()
    for name, age in (("old", 2 * 86_400), ("young", 60)):
        (incoming / name).write_bytes(b"x")
        os.utime(incoming / name, (time.time() - age,) * 2)
    Objects(tmp_path)
    assert [path.name for path in incoming.iterdir()] == ["young"]


def test_listing_is_sorted_and_filtered_by_prefix(objects: Objects) -> None:
    for key in ("b", "a/2", "a/1", "ab"):
        objects.put("bulk", key, b"xy")
    assert [(key, size) for key, size, _ in objects.list("bulk", "a")] == [("a/1", 2), ("a/2", 2), ("ab", 2)]
    assert objects.list("other") == []


def test_delete_is_idempotent_and_frees_the_prefix(objects: Objects) -> None:
    objects.put("bulk", "a/b/c", b"x")
    objects.delete("bulk", "a/b/c")
    objects.delete("bulk", "a/b/c")
    objects.put("bulk", "a", b"now an object")
    assert objects.list("bulk")[0][0] == "a"


def test_a_key_below_an_object_is_refused(objects: Objects) -> None:
    objects.put("bulk", "a", b"x")
    with pytest.raises(ApiError, match="is itself an object"):
        objects.put("bulk", "a/b", b"x")
    with pytest.raises(ApiError, match="does not exist"):
        objects.get("bulk", "a/b")


def test_a_key_above_objects_is_refused(objects: Objects) -> None:
    objects.put("bulk", "a/b", b"x")
    with pytest.raises(ApiError, match="is a prefix of other objects"):
        objects.put("bulk", "a", b"x")


@pytest.mark.parametrize("bucket", ["", "ab", "UPPER", "a/b", "..", "../x", ".abc", "a..b", "_incoming", "x" * 64])
def test_illegal_buckets_are_refused(objects: Objects, bucket: str) -> None:
    with pytest.raises(ApiError) as caught:
        objects.put(bucket, "k", b"x")
    assert caught.value.code == "InvalidBucketName"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b", "a\nb", "x" * 256, "a/" * 600 + "a", "\ud800"]
)
def test_illegal_keys_are_refused(objects: Objects, key: str) -> None:
    with pytest.raises(ApiError) as caught:
        objects.put("bulk", key, b"x")
    assert caught.value.code == "InvalidArgument"


@given(bucket=st.text(max_size=20), key=st.text(max_size=30))
def test_no_name_leads_outside_the_folder(bucket: str, key: str) -> None:
    folder = Path(__file__).parent / "never-made"
    store = Objects.__new__(Objects)
    store._folder = folder
    try:
        path = store.path(bucket, key)
    except ApiError:
        return
    assert path.resolve().is_relative_to(folder.resolve() / bucket)
    assert path.resolve() != folder.resolve() / bucket
