# SPDX-License-Identifier: Apache-2.0
"""MQTT control packets as the server sees them: an incremental decoder and the encoders. No I/O.

Decoding is by one function per packet type over a bounds-checked cursor, chosen by the packet type and given the
protocol level of the CONNECT, so that MQTT 5 adds property blocks there and nowhere else.

Source: MQTT 3.1.1 (OASIS), chapters 2 and 3; clause numbers in comments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

LEVEL_311 = 4

CONNACK_ACCEPTED = 0
CONNACK_PROTOCOL_VERSION = 1
CONNACK_IDENTIFIER = 2
CONNACK_UNAVAILABLE = 3
CONNACK_NOT_AUTHORIZED = 5
SUBACK_FAILURE = 0x80


class MalformedPacket(Exception):
    """The bytes are not an MQTT packet a client may send. The only exception that decoding raises."""


class Will(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Connect(NamedTuple):
    """`level` 4 is MQTT 3.1.1. For any other level only `level` is filled in: the answer is CONNACK 1."""

    level: int
    client_id: str = ""
    clean: bool = True
    keep_alive: int = 0  # seconds
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None


class Publish(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int  # 0 for QoS 0


class Puback(NamedTuple):
    packet_id: int


class Subscribe(NamedTuple):
    packet_id: int
    filters: tuple[tuple[str, int], ...]  # (topic filter, requested QoS 0..2)


class Unsubscribe(NamedTuple):
    packet_id: int
    filters: tuple[str, ...]


class Pingreq(NamedTuple):
    pass


class Disconnect(NamedTuple):
    pass


Packet = Connect | Publish | Puback | Subscribe | Unsubscribe | Pingreq | Disconnect


class _Cursor:
    """Reads the body of one packet; every read is checked against its end."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise MalformedPacket("the packet ends inside a field")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def packet_id(self) -> int:
        value = self.u16()
        if value == 0:
            raise MalformedPacket("packet identifier 0")  # 2.3.1-1
        return value

    def binary(self) -> bytes:
        return self.take(self.u16())

    def string(self) -> str:
        try:
            text = self.binary().decode("utf-8")  # strict: no surrogates, no overlong forms (1.5.3-1)
        except UnicodeDecodeError:
            raise MalformedPacket("a string is not UTF-8") from None
        if "\0" in text:
            raise MalformedPacket("a string contains U+0000")  # 1.5.3-2
        return text

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.position)

    def more(self) -> bool:
        return self.position < len(self.data)


def _connect(body: _Cursor, flags: int, level: int) -> Packet:
    name = body.binary()
    if name not in (b"MQTT", b"MQIsdp"):
        raise MalformedPacket("not an MQTT CONNECT")  # 3.1.2-1
    level = body.u8()
    if name == b"MQIsdp" or level != LEVEL_311:
        body.rest()
        return Connect(min(level, 3) if name == b"MQIsdp" else level)
    bits = body.u8()
    if bits & 0x01:
        raise MalformedPacket("CONNECT: the reserved flag is set")  # 3.1.2-3
    has_will, will_qos, will_retain = bool(bits & 0x04), bits >> 3 & 3, bool(bits & 0x20)
    has_username, has_password = bool(bits & 0x80), bool(bits & 0x40)
    if will_qos == 3 or (not has_will and (will_qos or will_retain)):
        raise MalformedPacket("CONNECT: will flags contradict each other")  # 3.1.2-11 .. 3.1.2-15
    if has_password and not has_username:
        raise MalformedPacket("CONNECT: a password without a user name")  # 3.1.2-22
    keep_alive = body.u16()
    client_id = body.string()
    will = Will(body.string(), body.binary(), will_qos, will_retain) if has_will else None
    username = body.string() if has_username else None
    password = body.binary() if has_password else None
    return Connect(level, client_id, bool(bits & 0x02), keep_alive, will, username, password)


def _publish(body: _Cursor, flags: int, level: int) -> Packet:
    qos = flags >> 1 & 3
    dup = bool(flags & 8)
    if qos == 3 or (dup and qos == 0):
        raise MalformedPacket("PUBLISH: impossible QoS or DUP flag")  # 3.3.1-2, 3.3.1-4
    topic = body.string()
    packet_id = body.packet_id() if qos else 0
    return Publish(topic, body.rest(), qos, bool(flags & 1), dup, packet_id)


def _puback(body: _Cursor, flags: int, level: int) -> Packet:
    return Puback(body.packet_id())


def _subscribe(body: _Cursor, flags: int, level: int) -> Packet:
    packet_id = body.packet_id()
    filters = []
    while body.more():
        topic_filter, options = body.string(), body.u8()
        if options > 2:
            raise MalformedPacket("SUBSCRIBE: impossible QoS")  # 3.8.3-4
        filters.append((topic_filter, options))
    if not filters:
        raise MalformedPacket("SUBSCRIBE without a filter")  # 3.8.3-3
    return Subscribe(packet_id, tuple(filters))


def _unsubscribe(body: _Cursor, flags: int, level: int) -> Packet:
    packet_id = body.packet_id()
    filters = []
    while body.more():
        filters.append(body.string())
    if not filters:
        raise MalformedPacket("UNSUBSCRIBE without a filter")  # 3.10.3-2
    return Unsubscribe(packet_id, tuple(filters))


def _pingreq(body: _Cursor, flags: int, level: int) -> Packet:
    return Pingreq()


def _disconnect(body: _Cursor, flags: int, level: int) -> Packet:
    return Disconnect()


# Packet type -> (required flags or None if they carry meaning, parser). Table 2.2 and 2.2.2-2. Types that only a
# server sends, and the QoS 2 flow that is never granted, are absent.
_PARSERS: dict[int, tuple[int | None, Callable[[_Cursor, int, int], Packet]]] = {
    1: (0, _connect),
    3: (None, _publish),
    4: (0, _puback),
    8: (2, _subscribe),
    10: (2, _unsubscribe),
    12: (0, _pingreq),
    14: (0, _disconnect),
}


class Decoder:
    """Bytes in, packets out. Holds at most one incomplete packet, whose size is judged before it is buffered.

    Usage: `feed(data)`, then `next()` until it returns None. After MalformedPacket the stream has no meaning any more
    and every further `next()` raises it again.
    """

    def __init__(self, max_packet: int) -> None:
        """max_packet: bytes of a packet, without its fixed header."""
        self._max_packet = max_packet
        self._buffer = bytearray()
        self._level = LEVEL_311
        self._broken: str | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Packet | None:
        """The next complete packet, or None if more bytes are needed. Raises MalformedPacket."""
        if self._broken is not None:
            raise MalformedPacket(self._broken)
        try:
            return self._next()
        except MalformedPacket as error:
            self._broken = str(error)
            self._buffer.clear()
            raise

    def _next(self) -> Packet | None:
        buffer = self._buffer
        if not buffer:
            return None
        kind, flags = buffer[0] >> 4, buffer[0] & 15
        known = _PARSERS.get(kind)
        if known is None:
            raise MalformedPacket(f"packet type {kind} is not for a server")
        required, parse = known
        if required is not None and flags != required:
            raise MalformedPacket(f"packet type {kind} with flags {flags}")
        length = 0
        for n in range(1, 5):
            if n >= len(buffer):
                return None
            length |= (buffer[n] & 127) << 7 * (n - 1)
            if buffer[n] < 128:
                break
        else:
            raise MalformedPacket("remaining length of more than four bytes")  # 2.2.3
        if length > self._max_packet:
            raise MalformedPacket(f"a packet of {length} bytes, limit {self._max_packet}")
        start, end = n + 1, n + 1 + length
        if len(buffer) < end:
            return None
        body = _Cursor(bytes(buffer[start:end]))
        del buffer[:end]
        packet = parse(body, flags, self._level)
        if body.more():
            raise MalformedPacket(f"packet type {kind} has {length - body.position} bytes too many")
        if isinstance(packet, Connect):
            self._level = packet.level
        return packet


PINGRESP = b"\xd0\x00"


def _remaining_length(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def connack(code: int, session_present: bool = False) -> bytes:
    return bytes((0x20, 2, int(session_present and code == CONNACK_ACCEPTED), code))


def publish(topic: str, payload: bytes, qos: int, retain: bool = False, packet_id: int = 0) -> bytes:
    """QoS 0 or 1. DUP stays 0 on redelivery (aws-iot-protocol.md section 2.3)."""
    name = topic.encode()
    head = len(name).to_bytes(2, "big") + name + (packet_id.to_bytes(2, "big") if qos else b"")
    return bytes((0x30 | qos << 1 | retain,)) + _remaining_length(len(head) + len(payload)) + head + payload


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def suback(packet_id: int, codes: list[int]) -> bytes:
    return b"\x90" + _remaining_length(2 + len(codes)) + packet_id.to_bytes(2, "big") + bytes(codes)


def unsuback(packet_id: int) -> bytes:
    return b"\xb0\x02" + packet_id.to_bytes(2, "big")
