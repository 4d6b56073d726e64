# SPDX-License-Identifier: Apache-2.0
"""The MQTT codec under Hypothesis, judged by the broker's own: what one writes the other reads."""

from __future__ import annotations

import contextlib
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.errors import ProtocolError
from edgeagent.mqtt import packet
from edgefleet.broker import packets as server

TOPICS = st.text(st.characters(exclude_characters="+#\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
FILTERS = TOPICS
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
CLIENT_IDS = st.text("abc-:_", min_size=1, max_size=128)
IDS = st.integers(1, 65535)
WILLS = st.none() | st.tuples(TOPICS, TEXTS)


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


@given(CLIENT_IDS, st.integers(0, 65535), st.booleans(), WILLS)
def test_the_broker_reads_our_connect(
    client_id: str, keepalive: int, clean: bool, will: tuple[str, str] | None
) -> None:
    found = as_the_broker_reads(packet.connect(client_id, keepalive, clean, will))
    kept = server.Will(will[0], will[1].encode(), 1, True) if will else None
    assert found == server.Connect(4, client_id, clean, keepalive, kept)


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


# --- against paho-mqtt, whose encoders write what ours must write to the byte


class _Paho(paho.Client):
    """Keeps what it would send."""

    def __init__(self, client_id: str = "x", clean: bool = True) -> None:
        super().__init__(paho.CallbackAPIVersion.VERSION2, client_id, clean_session=clean)
        self.sent = bytearray()
        self.number = 0
        self._sock = contextlib.closing(self)  # anything: without a socket it encodes nothing

    def __del__(self) -> None:
        pass

    def _packet_queue(self, command: int, packet: bytearray, *_: Any, **__: Any) -> paho.MQTTErrorCode:
        self.sent += packet
        return paho.MQTT_ERR_SUCCESS

    def _mid_generate(self) -> int:
        return self.number


@given(CLIENT_IDS, st.integers(0, 65535), st.booleans(), WILLS)
def test_our_connect_is_pahos(client_id: str, keepalive: int, clean: bool, will: tuple[str, str] | None) -> None:
    peer = _Paho(client_id, clean)
    if will:
        peer.will_set(will[0], will[1] or b"", 1, True)
    peer._send_connect(keepalive)
    assert packet.connect(client_id, keepalive, clean, will) == bytes(peer.sent)


@given(TOPICS, st.binary(max_size=20000), st.sampled_from((0, 1)), st.booleans(), IDS)
def test_our_publish_is_pahos(topic: str, payload: bytes, qos: int, retain: bool, packet_id: int) -> None:
    peer = _Paho()
    peer._send_publish(packet_id, topic.encode(), payload, qos, retain)
    assert packet.publish(topic, len(payload), qos, retain, packet_id) + payload == bytes(peer.sent)


@given(IDS, st.lists(st.tuples(FILTERS, st.sampled_from((0, 1))), min_size=1, max_size=8))
def test_our_subscribe_and_unsubscribe_are_pahos(packet_id: int, filters: list[tuple[str, int]]) -> None:
    peer = _Paho()
    peer.number = packet_id
    peer._send_subscribe(False, [(name.encode(), qos) for name, qos in filters])
    assert packet.filters(0x82, packet_id, [*filters]) == bytes(peer.sent)
    peer.sent.clear()
    peer._send_unsubscribe(False, [name.encode() for name, _ in filters])
    assert packet.filters(0xA2, packet_id, [name for name, _ in filters]) == bytes(peer.sent)


# --- all arguments, all bytes


@given(st.text(max_size=20), st.integers(0, 3), st.booleans())
def test_a_publish_is_encoded_as_the_broker_takes_it_or_refused(topic: str, qos: int, retain: bool) -> None:
    try:
        head = packet.publish(topic, 0, qos, retain, 1)
    except ValueError:
        assert qos > 1 or not topic or set(topic) & set("+#\0") or any(0xD800 <= ord(char) < 0xE000 for char in topic)
        return
    assert isinstance(as_the_broker_reads(head), server.Publish)


@given(st.integers(0, 268_435_455))
def test_a_remaining_length_is_read_back(size: int) -> None:
    head = packet.publish("a", max(size - 3, 0), 0, False)
    length = sum((byte & 127) << 7 * place for place, byte in enumerate(head[1:-3]))
    assert length == max(size, 3)
    assert len(head) - 4 == (1 if length < 128 else 2 if length < 16384 else 3 if length < 2097152 else 4)


@given(st.integers(-10, 100_000))
def test_a_number_is_two_bytes_or_refused(value: int) -> None:
    if 0 <= value < 65536:
        assert packet.number(value) == value.to_bytes(2, "big")
    else:
        with pytest.raises(ValueError):
            packet.number(value)
