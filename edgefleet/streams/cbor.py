# SPDX-License-Identifier: Apache-2.0
"""Messages of streams as CBOR (RFC 8949): one flat map of texts to texts, whole numbers and byte strings.

Nothing else occurs in them (aws-iot-protocol.md section 10.2), so a general library would only bring what has to be
refused again: tags, nesting, huge lengths. Items that this reader does not know make a message invalid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MAP, _BYTES, _TEXT = 5, 2, 3
_SIMPLE: dict[int, Any] = {20: False, 21: True, 22: None, 23: None}
_INDEFINITE = 31
_MAX_MEMBERS = 64


class CborError(ValueError):
    """The bytes are no such message."""


def encode(body: Mapping[str, Any]) -> bytes:
    """In the shortest form, members in the order of `body`."""
    return _head(_MAP, len(body)) + b"".join(_item(name) + _item(value) for name, value in body.items())


def decode(data: bytes) -> dict[str, Any]:
    """The message. Raises CborError."""
    reader = _Reader(data)
    kind, size = reader.head()
    if kind != _MAP or (size is not None and size > _MAX_MEMBERS):
        raise CborError("the payload is not a CBOR map")
    body: dict[str, Any] = {}
    while size is None or size > 0:
        if size is None and reader.peek() == 0xFF:
            reader.take(1)
            break
        name = reader.value()
        if not isinstance(name, str) or name in body:
            raise CborError("the members of the map must be different texts")
        body[name] = reader.value()
        size = None if size is None else size - 1
    if reader.rest():
        raise CborError("bytes follow the map")
    return body


def _item(value: Any) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return _head(_TEXT, len(text)) + text
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(encode(one) for one in value)
    return _head(0, int(value))


def _head(kind: int, value: int) -> bytes:
    if value < 24:
        return bytes([kind << 5 | value])
    code, size = next((code, 1 << code) for code in range(4) if value < 1 << (8 << code))
    return bytes([kind << 5 | 24 + code]) + value.to_bytes(size, "big")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def rest(self) -> int:
        return len(self._data) - self._at

    def peek(self) -> int:
        return self._data[self._at] if self.rest() else -1

    def take(self, size: int) -> bytes:
        if size > self.rest():
            raise CborError("the payload is cut short")
        self._at += size
        return self._data[self._at - size : self._at]

    def head(self) -> tuple[int, int | None]:
        """(major type, its number); None for an item without a length."""
        first = self.take(1)[0]
        kind, value = first >> 5, first & 31
        if value < 24:
            return kind, value
        if value < 28:
            return kind, int.from_bytes(self.take(1 << value - 24), "big")
        if value != _INDEFINITE:
            raise CborError("reserved length")
        return kind, None

    def value(self) -> Any:
        kind, number = self.head()
        if number is None:
            raise CborError("an item without a length")
        if kind == 0:
            return number
        if kind == 1:
            return -1 - number
        if kind == _BYTES:
            return self.take(number)
        if kind == _TEXT:
            try:
                return self.take(number).decode()
            except UnicodeDecodeError:
                raise CborError("text that is not UTF-8") from None
        if kind == 7 and number in _SIMPLE:
            return _SIMPLE[number]
        raise CborError("an item that no message has")
