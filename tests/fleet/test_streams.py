# SPDX-License-Identifier: Apache-2.0
"""MQTT file streams (aws-iot-protocol.md section 10, Appendix F 18)."""

from __future__ import annotations

import base64
import json
import random

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.artifacts.objects import Objects
from edgefleet.errors import ApiError
from edgefleet.messages import Request
from edgefleet.store import Store
from edgefleet.streams import blocks, cbor
from edgefleet.streams.blocks import GetRequest, StreamError
from edgefleet.streams.device_plane import StreamsPlane
from edgefleet.streams.operations import StreamOperations

DATA = random.Random(1).randbytes(10_000)
PREFIX = "$aws/things/t1/streams/s1"


class World:
    def __init__(self, path):
        self.store = Store(path / "fleet.db")
        self.objects = Objects(path / "objects")
        self.objects.put("firmware", "v1/app", DATA)
        self.plane = StreamsPlane(self.objects)
        self.call("create_stream", streamId="s1", files=[entry(0)], description="fw")

    def call(self, operation, **members):
        with self.store.transaction() as tx:
            return getattr(StreamOperations(self.objects), operation)(tx, **members)

    def ask(self, verb, body=b"", prefix=PREFIX):
        """Returns [(topic below the prefix, answer)]."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.store.transaction() as tx:
            assert self.plane.handle(tx, Request(f"{prefix}/{verb}", payload, "t1", "c"))
        assert all(message.to_requester for message in tx.outgoing)
        return [(message.topic[len(prefix) + 1 :], json.loads(message.payload)) for message in tx.outgoing]

    def blocks(self, **body):
        """{block number: bytes} of a get."""
        answers = self.ask("get/json", {"f": 0, "l": 4096, **body})
        assert {topic for topic, _ in answers} == {"data/json"}
        found = {answer["i"]: base64.b64decode(answer["p"]) for _, answer in answers}
        assert all(answer["l"] == len(found[answer["i"]]) and answer["f"] == 0 for _, answer in answers)
        return found

    def error(self, verb="get/json", body=b"", prefix=PREFIX):
        ((topic, answer),) = self.ask(verb, body, prefix)
        assert topic.startswith("rejected/")
        assert set(answer) <= {"o", "m", "c"}
        return answer["o"]


def entry(file_id, key="v1/app"):
    return {"fileId": file_id, "s3Location": {"bucket": "firmware", "key": key}}


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_describe_tells_version_and_sizes(world):
    assert world.ask("describe/json", {"c": "x"}) == [
        ("description/json", {"c": "x", "s": 1, "d": "fw", "r": [{"f": 0, "z": 10000}]})
    ]


def test_blocks_cover_the_file_and_the_last_one_is_short(world):
    found = world.blocks(o=0, n=8)
    assert {number: len(data) for number, data in found.items()} == {0: 4096, 1: 4096, 2: 1808}
    assert b"".join(found.values()) == DATA


def test_a_bitmap_selects_blocks_with_and_without_its_prefix(world):
    assert list(world.blocks(b="0x05")) == [0, 2]
    assert list(world.blocks(b="05")) == [0, 2]
    assert list(world.blocks(b="0x03", o=1)) == [1, 2]


def test_the_bitmap_is_applied_before_the_count_caps_it():
    request = blocks.get_request({"f": 0, "l": 4096, "o": 2, "n": 1, "b": b"MQ=="})
    assert blocks.select(request, 1 << 20) == [2]


def test_the_example_bitmap_of_the_reference():
    request = GetRequest(0, 4096, 20, None, bytes.fromhex("130080"))
    assert blocks.select(request, 1 << 20) == [20, 21, 24, 43]


def test_no_answer_exceeds_128_kilobytes():
    assert blocks.select(GetRequest(0, 4096, 0, 98304), 1 << 24) == list(range(32))
    assert blocks.select(GetRequest(0, 131072, 0, 5), 1 << 24) == [0]


def test_the_token_is_echoed_in_every_block(world):
    assert all(answer["c"] == "x" for _, answer in world.ask("get/json", {"f": 0, "l": 4096, "c": "x"}))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"f": 0, "l": 4096, "s": 2}, "VersionMismatch"),
        ({"f": 1, "l": 4096}, "ResourceNotFound"),
        ({"f": 0, "l": 255}, "BlockSizeOutOfBounds"),
        ({"f": 0, "l": 131073}, "BlockSizeOutOfBounds"),
        ({"f": 0, "l": 4096, "o": 98305}, "OffsetOutOfBounds"),
        ({"f": 0, "l": 4096, "o": 3}, "OffsetOutOfBounds"),
        ({"f": 0, "l": 4096, "n": 98305}, "BlockCountLimitExceeded"),
        ({"f": 0, "l": 4096, "b": "00" * 12288}, "BlockBitmapLimitExceeded"),
        ({"f": 0, "l": 4096, "b": "0x123"}, "InvalidRequest"),
        ({"f": 0, "l": 4096, "b": "0x00"}, "OffsetOutOfBounds"),
        ({"f": 0}, "InvalidRequest"),
        ({"f": True, "l": 4096}, "InvalidRequest"),
        ({"f": 0, "l": "4096"}, "InvalidRequest"),
        ({"f": 256, "l": 4096}, "InvalidRequest"),
        ({"c": "x" * 65}, "InvalidRequest"),
        (b"{", "InvalidJson"),
        (b"[]", "InvalidJson"),
        (b"[" * 100_000, "InvalidJson"),
        (b"\xff", "InvalidJson"),
    ],
)
def test_what_is_out_of_bounds_is_rejected_alone(world, body, code):
    assert world.error(body=body) == code


def test_an_unknown_stream_is_not_found(world):
    assert world.error("describe/json", prefix="$aws/things/t1/streams/no") == "ResourceNotFound"
    assert world.error("get/json", {"f": 0, "l": 4096}, "$aws/things/t1/streams/no") == "ResourceNotFound"


def test_other_topics_are_not_ours(world):
    with world.store.transaction() as tx:
        assert not world.plane.handle(tx, Request(f"{PREFIX}/data/json", b"", "t1", "c"))


def test_a_file_that_changed_under_the_stream_is_not_served(world):
    world.objects.put("firmware", "v1/app", DATA + b"x")
    assert world.error(body={"f": 0, "l": 4096}) == "ETagMismatch"
    world.objects.delete("firmware", "v1/app")
    assert world.error(body={"f": 0, "l": 4096}) == "ResourceNotFound"


def test_an_update_bumps_the_version_and_may_replace_the_files(world):
    world.objects.put("firmware", "v2", b"y" * 300)
    answer = world.call("update_stream", streamId="s1", files=[entry(0), entry(1, "v2")])
    assert answer["streamVersion"] == 2
    assert world.error(body={"f": 0, "l": 4096, "s": 1}) == "VersionMismatch"
    assert world.ask("describe/json")[0][1] == {"s": 2, "d": "fw", "r": [{"f": 0, "z": 10000}, {"f": 1, "z": 300}]}
    info = world.call("describe_stream", streamId="s1")["streamInfo"]
    assert info["files"][1]["s3Location"] == {"bucket": "firmware", "key": "v2"}


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"streamId": "s1"}, "ResourceAlreadyExistsException"),
        ({"streamId": "a b"}, "InvalidRequestException"),
        ({"files": []}, "InvalidRequestException"),
        ({"files": [entry(0), entry(0)]}, "InvalidRequestException"),
        ({"files": [entry(256)]}, "InvalidRequestException"),
        ({"files": [entry(0, "none")]}, "ResourceNotFoundException"),
        ({"files": [entry(0, "../x")]}, "ResourceNotFoundException"),
    ],
)
def test_bad_streams_are_refused(world, members, code):
    with pytest.raises(ApiError) as error:
        world.call("create_stream", **{"streamId": "s2", "files": [entry(0)], **members})
    assert error.value.code == code


def test_streams_are_listed_and_deleted(world):
    for name in ("s2", "s3"):
        world.call("create_stream", streamId=name, files=[entry(0)])
    first = world.call("list_streams", maxResults=2)
    assert [one["streamId"] for one in first["streams"]] == ["s3", "s2"]
    world.call("delete_stream", streamId="s2")
    second = world.call("list_streams", maxResults=2, nextToken=first["nextToken"])
    assert [one["streamId"] for one in second["streams"]] == ["s1"]
    assert [one["streamId"] for one in world.call("list_streams", ascendingOrder=True)["streams"]] == ["s1", "s3"]
    with pytest.raises(ApiError):
        world.call("describe_stream", streamId="s2")


@given(
    block=st.integers(256, 131072),
    offset=st.integers(0, 50),
    count=st.none() | st.integers(0, 60),
    bitmap=st.none() | st.binary(min_size=1, max_size=8),
    size=st.integers(0, 1 << 20),
)
def test_a_selection_is_wanted_bounded_and_inside_the_file(block, offset, count, bitmap, size):
    request = GetRequest(0, block, offset, count, bitmap)
    try:
        chosen = blocks.select(request, size)
    except StreamError:
        chosen = []
    assert chosen == sorted(set(chosen))
    assert len(chosen) * block <= blocks.MAX_BLOCK
    assert all(offset <= number and number * block < size for number in chosen)
    assert count in (None, 0) or len(chosen) <= count
    if bitmap is not None:
        bits = int.from_bytes(bitmap, "little")
        assert all(bits >> (number - offset) & 1 for number in chosen)


def ask_cbor(world, body):
    """[(topic below the prefix, answer)], through an encoder and decoder of others."""
    answers = []
    with world.store.transaction() as tx:
        payload = body if isinstance(body, bytes) else cbor2.dumps(body)
        assert world.plane.handle(tx, Request(f"{PREFIX}/get/cbor", payload, "t1", "c"))
    for message in tx.outgoing:
        answers.append((message.topic[len(PREFIX) + 1 :], cbor2.loads(message.payload)))
    return answers


def test_cbor_blocks_are_byte_strings(world):
    answers = ask_cbor(world, {"c": "x", "f": 0, "l": 4096, "o": 1, "n": 8})
    assert answers == [
        ("data/cbor", {"c": "x", "f": 0, "l": 4096, "i": 1, "p": DATA[4096:8192]}),
        ("data/cbor", {"c": "x", "f": 0, "l": 1808, "i": 2, "p": DATA[8192:]}),
    ]


def test_the_request_of_the_embedded_client_in_cbor(world):
    # MQ== as the bitmap and one block: section 10.3.
    answers = ask_cbor(world, {"c": "rdy", "f": 0, "l": 4096, "o": 1, "b": b"MQ==", "n": 1})
    assert [answer["i"] for _, answer in answers] == [1]


def test_a_description_in_cbor(world):
    with world.store.transaction() as tx:
        world.plane.handle(tx, Request(f"{PREFIX}/describe/cbor", cbor2.dumps({"c": "x"}), "t1", "c"))
    ((message),) = tx.outgoing
    assert message.topic.endswith("/description/cbor")
    assert cbor2.loads(message.payload) == {"c": "x", "s": 1, "d": "fw", "r": [{"f": 0, "z": 10000}]}


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x80",
        b"\xa1",
        b"\xa1\x61",
        b"\xa1\x01\x01",
        b"\xa2\x61c\x61x\x61c\x61y",
        b"\xa1\x61c\xc0\x61x",
        b"\xa1\x61c\x81\x01",
        b"\xa1\x61c\x5f\x41x\xff",
        b"\xa1\x61c\xfb" + bytes(8),
        b"\xa1\x61c\x61\xff",
        b"\xa1\x61c\x7b" + b"\xff" * 8,
        b"\xbb" + b"\xff" * 8,
        b"\xbf\x61c\x61x",
        b"\xa1\x61c\x1c",
        b"\xa0\x00",
    ],
)
def test_cbor_that_is_no_message_is_rejected(world, data):
    ((topic, answer),) = ask_cbor(world, data)
    assert (topic, answer["o"]) == ("rejected/cbor", "InvalidCbor")


def test_a_map_without_a_length_is_understood(world):
    ((_, answer), *_) = ask_cbor(world, b"\xbf\x61f\x00\x61l\x19\x10\x00\xff")
    assert answer["p"] == DATA[:4096]


MESSAGES = st.dictionaries(
    st.text(max_size=30), st.integers(0, 2**64 - 1) | st.text(max_size=300) | st.binary(max_size=70000), max_size=64
)


@given(MESSAGES)
def test_cbor_of_ours_and_of_others_agree(body):
    assert cbor2.loads(cbor.encode(body)) == body
    assert cbor.decode(cbor2.dumps(body)) == body
    assert cbor.encode(body) == cbor2.dumps(body)


@given(st.binary(max_size=200))
def test_whatever_is_read_as_cbor_is_what_others_read(data):
    try:
        body = cbor.decode(data)
    except cbor.CborError:
        return
    assert cbor2.loads(data) == body
