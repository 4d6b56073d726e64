# SPDX-License-Identifier: Apache-2.0
"""The MQTT codec under Hypothesis, judged by the broker's own: what one writes the other reads."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from edgeagent.errors import ProtocolError
from edgeagent.mqtt import packet
from edgefleet.broker import packets as server

TOPICS = st.text(st.characters(exclude_characters="+#\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
IDS = st.integers(1, 65535)


FILTERS = st.text(st.characters(exclude_characters="+#\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
WILLS = st.none() | st.tuples(TOPICS, st.binary(max_size=50), st.sampled_from((0, 1)), st.booleans())


def as_the_broker_reads(data: bytes) -> server.Packet | None:
    decoder = server.Decoder(65536)
    decoder.feed(data)
    return decoder.next()


def split(data: bytes) -> tuple[int, bytes]:
    """(first byte, body), by the definition of the remaining length (2.2.3)."""
    size = shift = 0
    at = 1
    while True:
        size |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            break
    assert len(data) == at + size
    return data[0], data[at:]


@given(st.text("abc-:_", min_size=1, max_size=128), st.integers(0, 65535), st.booleans(), WILLS)
def test_the_broker_reads_our_connect(
    client_id: str, keepalive: int, clean: bool, will: tuple[str, bytes, int, bool] | None
) -> None:
    found = as_the_broker_reads(packet.connect(client_id, keepalive, clean, will))
    expected = None if will is None else server.Will(*will)
    assert found == server.Connect(4, client_id, clean, keepalive, expected)


@given(TOPICS, st.binary(max_size=20000), st.sampled_from((0, 1)), st.booleans(), IDS, st.booleans())
def test_the_broker_reads_our_publish(
    topic: str, payload: bytes, qos: int, retain: bool, packet_id: int, dup: bool
) -> None:
    found = as_the_broker_reads(packet.publish(topic, len(payload), qos, retain, packet_id, dup) + payload)
    assert found == server.Publish(topic, payload, qos, retain, bool(dup and qos), packet_id if qos else 0)


@given(IDS, st.lists(st.tuples(FILTERS, st.sampled_from((0, 1))), min_size=1, max_size=8))
def test_the_broker_reads_our_subscribe_and_unsubscribe(packet_id: int, filters: list[tuple[str, int]]) -> None:
    names = [name for name, _ in filters]
    found = as_the_broker_reads(packet.subscribe(packet_id, filters))
    assert found == server.Subscribe(packet_id, tuple(filters))
    found = as_the_broker_reads(packet.unsubscribe(packet_id, names))
    assert found == server.Unsubscribe(packet_id, tuple(names))


@given(IDS)
def test_the_broker_reads_our_puback(packet_id: int) -> None:
    assert as_the_broker_reads(packet.puback(packet_id)) == server.Puback(packet_id)


@given(TOPICS, st.binary(max_size=20000), st.sampled_from((0, 1)), st.booleans(), IDS)
def test_we_read_the_publish_of_the_broker(topic: str, payload: bytes, qos: int, retain: bool, packet_id: int) -> None:
    head, body = split(server.publish(topic, payload, qos, retain, packet_id))
    found, number, at = packet.decode_publish(head & 15, body)
    assert (found, number, body[at:]) == (topic, packet_id if qos else 0, payload)


@given(IDS, st.lists(st.sampled_from((0, 1, 128)), min_size=1, max_size=8))
def test_we_read_the_acknowledgements_of_the_broker(packet_id: int, codes: list[int]) -> None:
    for kind, data, expected in (
        (4, server.puback(packet_id), b""),
        (9, server.suback(packet_id, codes), bytes(codes)),
        (11, server.unsuback(packet_id), b""),
    ):
        head, body = split(data)
        assert head >> 4 == kind
        assert packet.decode_ack(kind, head & 15, body) == (packet_id, expected)


@given(st.integers(0, 15), st.binary(max_size=40))
def test_any_bytes_decode_or_break_the_protocol(flags: int, body: bytes) -> None:
    for decode in (
        lambda: packet.decode_connack(flags, body),
        lambda: packet.decode_ack(4, flags, body),
        lambda: packet.decode_ack(9, flags, body),
        lambda: packet.decode_ack(11, flags, body),
        lambda: packet.decode_publish(flags, body),
    ):
        with contextlib.suppress(ProtocolError):
            decode()


@given(st.integers(0, 15), st.binary(max_size=40))
def test_a_decoded_publish_lies_within_its_packet(flags: int, body: bytes) -> None:
    try:
        topic, packet_id, at = packet.decode_publish(flags, body)
    except ProtocolError:
        return
    assert topic and at <= len(body)
    assert bool(packet_id) == bool(flags & 2)
    assert body[2 : 2 + len(topic.encode())] == topic.encode()
