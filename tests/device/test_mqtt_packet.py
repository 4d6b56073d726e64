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


@given(st.text("abc-:_", min_size=1, max_size=128), st.integers(0, 65535), st.booleans())
def test_the_broker_reads_our_connect(client_id: str, keepalive: int, clean: bool) -> None:
    found = as_the_broker_reads(packet.connect(client_id, keepalive, clean))
    assert found == server.Connect(4, client_id, clean, keepalive, None)


@given(TOPICS, st.binary(max_size=20000), st.sampled_from((0, 1)), st.booleans(), IDS)
def test_the_broker_reads_our_publish(topic: str, payload: bytes, qos: int, retain: bool, packet_id: int) -> None:
    found = as_the_broker_reads(packet.publish(topic, len(payload), qos, retain, packet_id) + payload)
    assert found == server.Publish(topic, payload, qos, retain, False, packet_id if qos else 0)


@given(IDS, st.lists(st.tuples(FILTERS, st.sampled_from((0, 1))), min_size=1, max_size=8))
def test_the_broker_reads_our_subscribe_and_unsubscribe(packet_id: int, filters: list[tuple[str, int]]) -> None:
    names = [name for name, _ in filters]
    found = as_the_broker_reads(packet.filters(0x82, packet_id, [*filters]))
    assert found == server.Subscribe(packet_id, tuple(filters))
    found = as_the_broker_reads(packet.filters(0xA2, packet_id, [*names]))
    assert found == server.Unsubscribe(packet_id, tuple(names))


@given(TOPICS, st.binary(max_size=20000), st.sampled_from((0, 1)), st.booleans(), IDS)
def test_we_read_the_publish_of_the_broker(topic: str, payload: bytes, qos: int, retain: bool, packet_id: int) -> None:
    head, body = split(server.publish(topic, payload, qos, retain, packet_id))
    found, number, at = packet.decode_publish(head, body)
    assert (found, number, body[at:]) == (topic, packet_id if qos else 0, payload)


@given(IDS, st.lists(st.sampled_from((0, 1, 128)), min_size=1, max_size=8))
def test_we_read_the_acknowledgements_of_the_broker(packet_id: int, codes: list[int]) -> None:
    for data, expected in (
        (server.puback(packet_id), b""),
        (server.suback(packet_id, codes), bytes(codes)),
        (server.unsuback(packet_id), b""),
    ):
        assert packet.decode_ack(*split(data)) == (packet_id, expected)


@given(st.integers(0, 255), st.binary(max_size=40))
def test_any_bytes_decode_or_break_the_protocol(head: int, body: bytes) -> None:
    for decode in (packet.decode_ack, packet.decode_publish):
        with contextlib.suppress(ProtocolError):
            decode(head, body)


@given(st.integers(0x30, 0x3F), st.binary(max_size=40))
def test_a_decoded_publish_lies_within_its_packet(head: int, body: bytes) -> None:
    try:
        topic, packet_id, at = packet.decode_publish(head, body)
    except ProtocolError:
        return
    assert topic and at <= len(body)
    assert bool(packet_id) == bool(head & 2)
    assert body[2 : 2 + len(topic.encode())] == topic.encode()
