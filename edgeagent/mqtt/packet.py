# SPDX-License-Identifier: Apache-2.0
"""MQTT 3.1.1 control packets as a client needs them: pure encoding and strict decoding, no I/O.

Encoders return the whole packet, except `publish`, which returns everything before the payload so that a large payload
is never copied. Decoders take the first byte of the packet and the body after its length, and raise ProtocolError for
anything the standard forbids a server to send. QoS 2 is never granted by AWS IoT (aws-iot-protocol.md 2.4), so it
is refused in both directions. An argument that cannot be encoded is a mistake of the caller: ValueError.
Source: MQTT 3.1.1 (OASIS) chapters 2 and 3.
"""

from edgeagent.errors import ProtocolError


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


def _wrong(topic: str) -> bool:
    """Topic names are not empty and without wildcards and NUL (4.7.1, 4.7.3)."""
    return not topic or "+" in topic or "#" in topic or "\0" in topic


def connect(client_id: str, keepalive: int, clean: bool, will: "tuple[str, str] | None" = None) -> bytes:
    """CONNECT without user name (3.1). keepalive: seconds. will: (topic, text), sent with QoS 1 and retained."""
    flags = 2 if clean else 0
    tail = _field(client_id)
    if will:
        flags |= 0x2C
        tail += _field(will[0]) + _field(will[1])
    return _packet(0x10, b"\0\4MQTT\4" + bytes((flags,)) + number(keepalive) + tail)


def publish(topic: str, size: int, qos: int, retain: bool, packet_id: int = 0) -> bytes:
    """PUBLISH up to its payload of `size` bytes (3.3). packet_id only counts for QoS 1."""
    if _wrong(topic) or qos > 1:
        raise ValueError(topic)
    head = _field(topic)
    if qos:
        head += number(packet_id)
    return _packet(0x30 | qos << 1 | bool(retain), head, size)


def filters(head: int, packet_id: int, filters: "list[str | tuple[str, int]]") -> bytes:
    """SUBSCRIBE (head 0x82, 3.8) for filters or (filter, qos) pairs, QoS 1 if not said; UNSUBSCRIBE (0xA2, 3.10)."""
    body = number(packet_id)
    for name in filters:
        qos = 1
        if isinstance(name, tuple):
            name, qos = name
        body += _field(name)
        if head < 0x90:
            body += bytes((qos,))
    return _packet(head, body)


def decode_ack(head: int, body: "bytes | bytearray") -> "tuple[int, bytes]":
    """(packet id, SUBACK return codes) of PUBACK (0x40), SUBACK (0x90) or UNSUBACK (0xB0) (3.4, 3.9, 3.11)."""
    if head not in b"\x40\x90\xb0" or len(body) < 2 or (head == 0x90) != (len(body) > 2):
        raise ProtocolError("bad packet %d" % head)
    return body[0] << 8 | body[1], bytes(body[2:])


def decode_publish(head: int, body: "bytes | bytearray") -> "tuple[str, int, int]":
    """(topic, packet id, offset of the payload) of a PUBLISH (3.3); packet id 0 means QoS 0.

    `body` may be only the beginning of the packet, as long as topic and packet id are in it.
    """
    qos = head >> 1 & 3
    at = (body[0] << 8 | body[1]) + 2 if len(body) > 1 else 0
    end = at + 2 * qos
    topic = ""
    packet_id = 0
    # DUP is for QoS 1 only (3.3.1-2).
    if qos < 2 and (qos or not head & 8) and end <= len(body):
        try:
            topic = bytes(body[2:at]).decode()
        except UnicodeError:
            pass
        if qos:
            packet_id = body[at] << 8 | body[at + 1]
    if _wrong(topic) or (qos and not packet_id):
        raise ProtocolError("bad PUBLISH")
    return topic, packet_id, end
