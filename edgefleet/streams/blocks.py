# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a file a GetStream request asks for. Pure.

Source: aws-iot-protocol.md section 10.2, Appendix D.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

MIN_BLOCK = 256  # bytes
MAX_BLOCK = 131072  # bytes, also of all blocks that answer one request
MAX_OFFSET = 98304  # blocks; also the largest block count
MAX_BITMAP = 12287  # bytes
MAX_FILE = 255
MAX_TOKEN = 64  # bytes
MAX_VERSION = 65535
_HEX = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2})*)")


class StreamError(Exception):
    """A refused request. `code`: of section 10.2."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class GetRequest:
    """A checked GetStream. `count` and `bitmap` are None if not given."""

    file: int
    block: int
    offset: int = 0
    count: int | None = None
    bitmap: bytes | None = None
    version: int | None = None


def token(body: Mapping[str, Any]) -> str | None:
    """The client token `c`."""
    value = body.get("c")
    if value is not None and (not isinstance(value, str) or len(value.encode()) > MAX_TOKEN):
        raise StreamError("InvalidRequest", f"c must be a string of at most {MAX_TOKEN} bytes")
    return value


def get_request(body: Mapping[str, Any]) -> GetRequest:
    """Check a GetStream request. `b` is a hex string, with or without 0x, or bytes. Raises StreamError."""
    version = _integer(body, "s", 0, MAX_VERSION, "InvalidRequest")
    file = _integer(body, "f", 0, MAX_FILE, "InvalidRequest")
    block = _integer(body, "l", MIN_BLOCK, MAX_BLOCK, "BlockSizeOutOfBounds")
    if file is None or block is None:
        raise StreamError("InvalidRequest", "f (file id) and l (block size) are required")
    offset = _integer(body, "o", 0, MAX_OFFSET, "OffsetOutOfBounds") or 0
    count = _integer(body, "n", 0, MAX_OFFSET, "BlockCountLimitExceeded")
    return GetRequest(file, block, offset, count, _bitmap(body.get("b")), version)


def select(request: GetRequest, size: int) -> list[int]:
    """The numbers of the blocks to send, in order: at most 128 KB of them, and none past the end of the file.

    The bitmap is applied first and capped by the count afterwards (section 10.3: a client sends both, and means it).
    Raises StreamError OffsetOutOfBounds if that leaves nothing, so that the requester is never left without an answer.
    """
    most = MAX_BLOCK // request.block
    cap = min(request.count or most, most)
    wanted = _marked(request.bitmap, request.offset) if request.bitmap else iter(
        range(request.offset, request.offset + cap))  # fmt: skip
    blocks = list(islice((block for block in wanted if block * request.block < size), cap))
    if not blocks:
        raise StreamError("OffsetOutOfBounds", f"no wanted block from {request.offset} lies within {size} bytes")
    return blocks


def _marked(bitmap: bytes, offset: int) -> Iterator[int]:
    """Byte 0 holds the first eight blocks, its least significant bit the first of them."""
    for position, byte in enumerate(bitmap):
        for bit in range(8):
            if byte >> bit & 1:
                yield offset + 8 * position + bit


def _bitmap(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        if len(value) > 2 * MAX_BITMAP + 2:
            raise StreamError("BlockBitmapLimitExceeded", f"b must have at most {MAX_BITMAP} bytes")
        digits = _HEX.fullmatch(value)
        if digits is None:
            raise StreamError("InvalidRequest", "b must be a string of pairs of hexadecimal digits")
        value = bytes.fromhex(digits[1])
    if not isinstance(value, bytes):
        raise StreamError("InvalidRequest", "b must be a bitmap")
    if len(value) > MAX_BITMAP:
        raise StreamError("BlockBitmapLimitExceeded", f"b must have at most {MAX_BITMAP} bytes")
    return value


def _integer(body: Mapping[str, Any], name: str, low: int, high: int, code: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise StreamError("InvalidRequest", f"{name} must be an integer")
    if not low <= value <= high:
        raise StreamError(code, f"{name} must be between {low} and {high}")
    return value
