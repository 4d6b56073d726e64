# SPDX-License-Identifier: Apache-2.0
"""MQTT 3.1.1 control packets as a client needs them: pure encoding and strict decoding, no I/O.

Encoders return the whole packet, except `publish`, which returns everything before the payload so that a large payload
is never copied. Decoders take the four flag bits of the fixed header and the body after it, and raise ProtocolError
for anything the standard forbids a server to send. QoS 2 is never granted by AWS IoT (aws-iot-protocol.md 2.4), so it
is refused in both directions. An argument that cannot be encoded is a mistake of the caller: ValueError.
Source: MQTT 3.1.1 (OASIS) chapters 2 and 3.
"""

from edgeagent.errors import ProtocolError

PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"


def _packet(head: int, body: bytes, more: int = 0) -> bytes:
    """Fixed header (2.2) and body; `more`: bytes of payload that the caller sends after it."""
    size = len(body) + more
    out = bytearray((head,))
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + body


def _number(value: int) -> bytes:
    if not 0 <= value < 65536:
        raise ValueError("%d is over 65535" % value)
    return bytes((value >> 8, value & 255))


def _field(value: "str | bytes") -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _number(len(data)) + data


def _check(topic: str, qos: int) -> None:
    if not topic or "+" in topic or "#" in topic or qos not in (0, 1):
        raise ValueError("topic %r, QoS %d" % (topic, qos))


def connect(client_id: str, keepalive: int, clean: bool, will: "tuple[str, bytes, int, bool] | None" = None) -> bytes:
    """CONNECT without user name (3.1). keepalive: seconds. will: (topic, payload, qos, retain)."""
    flags = 2 if clean else 0
    tail = _field(client_id)
    if will is not None:
        topic, payload, qos, retain = will
        _check(topic, qos)
        flags |= 4 | qos << 3 | (32 if retain else 0)
        tail += _field(topic) + _field(payload)
    return _packet(0x10, b"\0\4MQTT\4" + bytes((flags,)) + _number(keepalive) + tail)


def publish(topic: str, size: int, qos: int, retain: bool, packet_id: int = 0, dup: bool = False) -> bytes:
    """PUBLISH up to its payload of `size` bytes (3.3). packet_id and dup only count for QoS 1."""
    _check(topic, qos)
    head = _field(topic)
    if qos:
        head += _number(packet_id)
    return _packet(0x30 | qos << 1 | (1 if retain else 0) | (8 if dup and qos else 0), head, size)


def subscribe(packet_id: int, filters: "list[tuple[str, int]]") -> bytes:
    """SUBSCRIBE for (filter, qos) pairs (3.8)."""
    body = _number(packet_id)
    for name, qos in filters:
        body += _field(name) + bytes((qos,))
    return _packet(0x82, body)


def unsubscribe(packet_id: int, filters: "list[str]") -> bytes:
    """UNSUBSCRIBE (3.10)."""
    body = _number(packet_id)
    for name in filters:
        body += _field(name)
    return _packet(0xA2, body)


def puback(packet_id: int) -> bytes:
    """PUBACK (3.4)."""
    return _packet(0x40, _number(packet_id))


def decode_connack(flags: int, body: "bytes | bytearray") -> "tuple[bool, int]":
    """(session present, return code) of a CONNACK (3.2). Code 0 is accepted; AWS also uses 7 (2.2)."""
    if flags or len(body) != 2 or body[0] > 1 or (body[0] and body[1]):
        raise ProtocolError("malformed CONNACK")
    return body[0] == 1, body[1]


def decode_ack(kind: int, flags: int, body: "bytes | bytearray") -> "tuple[int, bytes]":
    """(packet id, SUBACK return codes) of PUBACK (kind 4), SUBACK (9) or UNSUBACK (11) (3.4, 3.9, 3.11)."""
    codes = bytes(body[2:])
    if flags or len(body) < 2 or (kind == 9) != (len(codes) > 0) or codes.strip(b"\0\1\x80"):
        raise ProtocolError("malformed packet type %d" % kind)
    return body[0] << 8 | body[1], codes


def decode_publish(flags: int, body: "bytes | bytearray") -> "tuple[str, int, int]":
    """(topic, packet id, offset of the payload) of a PUBLISH (3.3); packet id 0 means QoS 0.

    `body` may be only the beginning of the packet, as long as topic and packet id are in it.
    """
    qos = flags >> 1 & 3
    at = (body[0] << 8 | body[1]) + 2 if len(body) > 1 else 0
    end = at + 2 * qos
    # DUP is for QoS 1 only (3.3.1-2).
    if qos > 1 or (flags & 8 and not qos) or at < 3 or end > len(body):
        raise ProtocolError("malformed PUBLISH, flags %d" % flags)
    try:
        topic = bytes(body[2:at]).decode()
    except UnicodeError:
        topic = "\0"
    packet_id = body[at] << 8 | body[at + 1] if qos else 1
    if "\0" in topic or "+" in topic or "#" in topic or not packet_id:
        raise ProtocolError("malformed PUBLISH, topic or packet id")
    return topic, packet_id if qos else 0, end
