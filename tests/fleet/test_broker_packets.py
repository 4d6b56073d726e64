# SPDX-License-Identifier: Apache-2.0
"""The codec alone. Valid input is made by the encoder of the tests, output is read byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.broker import packets
from edgefleet.broker.packets import Decoder, MalformedPacket
from tests.fleet.broker_support import connect_packet, packet, publish_packet, subscribe_packet, text

strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
idents = st.integers(1, 65535)
wills = st.none() | st.tuples(strings, st.binary(max_size=40), st.integers(0, 2), st.booleans())
connects = st.builds(connect_packet, strings, st.booleans(), st.integers(0, 65535), wills, st.none() | strings)
publishes = st.builds(publish_packet, strings, st.binary(max_size=300), st.integers(0, 2), st.booleans(), idents)
subscribes = st.builds(
    subscribe_packet, idents, st.lists(st.tuples(strings, st.integers(0, 2)), min_size=1, max_size=9)
)
small = st.sampled_from([b"\xc0\x00", b"\xe0\x00", b"\x40\x02\x00\x07"])
streams = st.lists(connects | publishes | subscribes | small, max_size=6).map(b"".join)


def decode(data: bytes, max_packet: int = 1000) -> list[packets.Packet]:
    decoder = Decoder(max_packet)
    decoder.feed(data)
    found = []
    while (one := decoder.next()) is not None:
        found.append(one)
    return found


def broken(data: bytes, why: str, max_packet: int = 1000) -> None:
    with pytest.raises(MalformedPacket, match=why):
        decode(data, max_packet)


@given(strings, st.booleans(), st.integers(0, 65535), wills, st.none() | strings)
def test_connect_carries_every_field(client_id, clean, keep_alive, will, username) -> None:
    [found] = decode(connect_packet(client_id, clean, keep_alive, will, username))
    assert found == packets.Connect(
        4, client_id, clean, keep_alive, None if will is None else packets.Will(*will), username, None
    )


@given(strings, st.binary(max_size=300), st.integers(0, 2), st.booleans(), idents)
def test_publish_carries_every_field(topic, payload, qos, retain, ident) -> None:
    [found] = decode(publish_packet(topic, payload, qos, retain, ident))
    assert found == packets.Publish(topic, payload, qos, retain, False, ident if qos else 0)


@given(idents, st.lists(st.tuples(strings, st.integers(0, 2)), min_size=1, max_size=9))
def test_subscribe_carries_filters_in_order(ident, filters) -> None:
    assert decode(subscribe_packet(ident, filters)) == [packets.Subscribe(ident, tuple(filters))]


@given(strings, st.binary(max_size=300), st.integers(0, 1), st.booleans(), idents)
def test_encoded_publish_is_what_the_other_codec_makes(topic, payload, qos, retain, ident) -> None:
    assert packets.publish(topic, payload, qos, retain, ident) == publish_packet(topic, payload, qos, retain, ident)


@given(streams, st.data())
def test_chunk_borders_do_not_matter(stream, data) -> None:
    whole = decode(stream)
    decoder, found, position = Decoder(1000), [], 0
    while position < len(stream):
        size = data.draw(st.integers(1, len(stream) - position))
        decoder.feed(stream[position : position + size])
        position += size
        while (one := decoder.next()) is not None:
            found.append(one)
    assert found == whole


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_malformed_packet(data) -> None:
    decoder = Decoder(100)
    decoder.feed(data)
    try:
        while decoder.next() is not None:
            pass
    except MalformedPacket:
        with pytest.raises(MalformedPacket):
            decoder.next()


@given(streams, st.data())
def test_damaged_packets_raise_nothing_but_malformed_packet(stream, data) -> None:
    damaged = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    decoder = Decoder(1000)
    decoder.feed(bytes(damaged))
    try:
        while decoder.next() is not None:
            pass
    except MalformedPacket:
        pass


def test_size_is_judged_before_the_body_arrives() -> None:
    broken(b"\x30\xff\xff\x7f", "2097151 bytes, limit 1000")


def test_remaining_length_has_at_most_four_bytes() -> None:
    broken(b"\x30\xff\xff\xff\xff", "more than four")


@pytest.mark.parametrize("kind", [0, 2, 5, 6, 7, 9, 11, 13, 15])
def test_types_that_a_client_may_not_send(kind) -> None:
    broken(bytes((kind << 4, 0)), "not for a server")


@pytest.mark.parametrize("first", [0x11, 0x41, 0x80, 0xA0, 0xC1, 0xE2])
def test_reserved_flags(first) -> None:
    broken(bytes((first, 2, 0, 1)), "flags")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (packet(0x36, text("t") + b"\0\1"), "QoS"),
        (packet(0x38, text("t")), "DUP"),
        (packet(0x32, text("t") + b"\0\0"), "identifier 0"),
        (packet(0x30, b"\0\5t"), "ends inside"),
        (packet(0x30, text(b"\xed\xa0\x80")), "UTF-8"),
        (packet(0x30, text("a\0b")), "U\\+0000"),
        (packet(0x82, b"\0\1"), "without a filter"),
        (packet(0x82, b"\0\1" + text("t") + b"\3"), "QoS"),
        (packet(0xA2, b"\0\1"), "without a filter"),
        (packet(0x40, b"\0\1\0"), "too many"),
        (packet(0xC0, b"\0"), "too many"),
        (packet(0x10, text("HTTP") + b"\4\2\0\0" + text("x")), "not an MQTT"),
        (packet(0x10, text("MQTT") + b"\4\3\0\0" + text("x")), "reserved flag"),
        (packet(0x10, text("MQTT") + b"\4\x22\0\0" + text("x")), "will flags"),
        (packet(0x10, text("MQTT") + b"\4\x42\0\0" + text("x")), "password"),
    ],
)
def test_malformed_fields(data, why) -> None:
    broken(data, why)


@pytest.mark.parametrize(("name", "level"), [("MQTT", 5), ("MQTT", 0x84), ("MQIsdp", 3)])
def test_another_protocol_level_is_named_and_nothing_else_is_read(name, level) -> None:
    [found] = decode(packet(0x10, text(name) + bytes((level, 0xFF)) + b"anything"))
    assert found == packets.Connect(level)


def test_answers_byte_by_byte() -> None:
    assert packets.connack(0, True) == b"\x20\x02\x01\x00"
    assert packets.connack(5, True) == b"\x20\x02\x00\x05"
    assert packets.puback(258) == b"\x40\x02\x01\x02"
    assert packets.suback(1, [0, 1, 0x80]) == b"\x90\x05\x00\x01\x00\x01\x80"
    assert packets.unsuback(1) == b"\xb0\x02\x00\x01"
