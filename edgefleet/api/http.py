# SPDX-License-Identifier: Apache-2.0
"""ASGI requests and responses in the little form the front needs; bodies are read with a cap and a time limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import parse_qsl

from edgefleet.errors import ApiError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_S = 300  # a body has to arrive within this time
_DRAIN_S = 2  # so long, and so much, of an unwanted body is read before the connection is closed
_DRAIN_BYTES = 8 * 1024 * 1024
CHUNK = 65536  # bytes of a file sent at once


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class TooLarge(ApiError):
    """The body exceeds the cap of `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__("RequestEntityTooLargeException", f"The request body exceeds {limit} bytes", 413)


@dataclass
class HttpRequest:
    method: str
    path: str  # percent-encoded, as it came, without the query string
    query: list[tuple[str, str]]  # decoded, in order
    headers: dict[str, str]  # by lower-case name; repeated ones joined by commas
    receive: Receive
    complete: bool = True  # no more of the body is to come

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> HttpRequest:
        """Raises ApiError 400 if the query string is not acceptable."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").partition("?")[0]
        try:
            query = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=200)
        except ValueError:
            raise ApiError("InvalidRequestException", "The query string is not acceptable", 400) from None
        bodiless = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        return cls(scope["method"], path, query, headers, receive, bodiless)

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """The body in pieces. Raises TooLarge beyond `limit` bytes, ApiError 408 after BODY_S, ClientGone."""
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise TooLarge(limit)
        total = 0
        deadline = asyncio.get_running_loop().time() + BODY_S
        more = True
        while more:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await self.receive()
            except TimeoutError:
                raise ApiError("RequestTimeout", f"The body did not arrive within {BODY_S} s", 408) from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            total += len(piece)
            if total > limit:
                raise TooLarge(limit)
            if piece:
                yield piece
            more = bool(message.get("more_body", False))
            self.complete = not more

    async def drain(self) -> bool:
        """Take what is left of a body that is not wanted, within reason; False if more is to come.

        A client that is still sending would lose our answer if we closed on it. One that asked whether to send at all
        (Expect: 100-continue) is not: it waits for the answer.
        """
        if not self.complete and "expect" not in self.headers:
            with contextlib.suppress(ApiError, TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    async for _ in self.chunks(_DRAIN_BYTES):
                        pass
        return self.complete

    async def body(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes (see `chunks`)."""
        return b"".join([piece async for piece in self.chunks(limit)])


@dataclass
class HttpResponse:
    """`file`: sent after `body`, `length` bytes from its current position; closed in any case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: BinaryIO | None = None
    length: int = 0

    async def send(self, send: Send, *, head: bool) -> None:
        """head: answer of a HEAD request, which has headers only."""
        try:
            headers = {"content-length": str(len(self.body) + self.length)} | self.headers
            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": self.status, "headers": raw})
            left = 0 if head or self.file is None else self.length
            await send({"type": "http.response.body", "body": b"" if head else self.body, "more_body": left > 0})
            while left > 0 and self.file is not None:
                piece = self.file.read(min(CHUNK, left))
                if not piece:
                    raise OSError("an object became shorter while it was sent")
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
        finally:
            if self.file is not None:
                self.file.close()
