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
PUBACK = b"\x40\x02"  # and the packet id


def number(value: int) -> bytes:
    """Two bytes, as packet ids and lengths are sent (1.5.2). ValueError for what does not fit."""
    return bytes((value >> 8, value & 255))


def _packet(head: int, body: bytes, size: int = 0) -> bytes:
    """Fixed header (2.2) and body; `size`: bytes of payload that the caller sends after it."""
    size += len(body)
    out = bytearray((head,))
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + body


def _field(value: str) -> bytes:
    data = value.encode()
    return number(len(data)) + data


def connect(client_id: str, keepalive: int, clean: bool) -> bytes:
    """CONNECT without user name and will (3.1). keepalive: seconds."""
    flags = b"\x02" if clean else b"\x00"
    return _packet(0x10, b"\0\4MQTT\4" + flags + number(keepalive) + _field(client_id))


def publish(topic: str, size: int, qos: int, retain: bool, packet_id: int = 0) -> bytes:
    """PUBLISH up to its payload of `size` bytes (3.3). packet_id only counts for QoS 1."""
    if not topic or "+" in topic or "#" in topic or qos > 1:
        raise ValueError(topic)
    head = _field(topic)
    if qos:
        head += number(packet_id)
    return _packet(0x30 | qos << 1 | bool(retain), head, size)


def subscribe(packet_id: int, filters: "list[tuple[str, int]]") -> bytes:
    """SUBSCRIBE for (filter, qos) pairs (3.8)."""
    body = number(packet_id)
    for topic, qos in filters:
        body += _field(topic) + bytes((qos,))
    return _packet(0x82, body)


def unsubscribe(packet_id: int, filters: "list[str]") -> bytes:
    """UNSUBSCRIBE (3.10)."""
    body = number(packet_id)
    for topic in filters:
        body += _field(topic)
    return _packet(0xA2, body)


def decode_connack(flags: int, body: "bytes | bytearray") -> "tuple[bool, int]":
    """(session present, return code) of a CONNACK (3.2). Code 0 is accepted; AWS also uses 7 (2.2)."""
    if flags or len(body) != 2 or body[0] > 1 or (body[0] and body[1]):
        raise ProtocolError("bad CONNACK")
    return body[0] == 1, body[1]


def decode_ack(kind: int, flags: int, body: "bytes | bytearray") -> "tuple[int, bytes]":
    """(packet id, SUBACK return codes) of PUBACK (kind 4), SUBACK (9) or UNSUBACK (11) (3.4, 3.9, 3.11)."""
    codes = bytes(body[2:])
    if flags or len(body) < 2 or (kind == 9) != (len(codes) > 0) or codes.strip(b"\0\1\x80"):
        raise ProtocolError("bad packet type %d" % kind)
    return body[0] << 8 | body[1], codes


def decode_publish(flags: int, body: "bytes | bytearray") -> "tuple[str, int, int]":
    """(topic, packet id, offset of the payload) of a PUBLISH (3.3); packet id 0 means QoS 0.

    `body` may be only the beginning of the packet, as long as topic and packet id are in it.
    """
    qos = flags >> 1 & 3
    at = (body[0] << 8 | body[1]) + 2 if len(body) > 1 else 0
    end = at + 2 * qos
    topic = ""
    packet_id = 0
    # DUP is for QoS 1 only (3.3.1-2).
    if qos < 2 and (qos or flags < 8) and end <= len(body):
        try:
            topic = bytes(body[2:at]).decode()
        except UnicodeError:
            pass
        if qos:
            packet_id = body[at] << 8 | body[at + 1]
    if not topic or "\0" in topic or "+" in topic or "#" in topic or (qos and not packet_id):
        raise ProtocolError("bad PUBLISH")
    return topic, packet_id, end
