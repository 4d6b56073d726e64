# SPDX-License-Identifier: Apache-2.0
"""Job documents: checking one at creation, and the form in which a device gets it.

Source: aws-iot-protocol.md sections 3.3 (re-serialisation), 4.1 (limits), 4.2 (placeholders).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from edgefleet import payload
from edgefleet.errors import ApiError, invalid, limit_exceeded

MAX_DOCUMENT = 32768  # characters of `document`, bytes of an object
MAX_DEPTH = 100  # the service says 1000, which no device and no JSON library here would survive

# (bucket, key, seconds valid) -> URL
Presign = Callable[[str, str, int], str]

_PLACEHOLDER = re.compile(r"\$\{aws:iot:s3-presigned-url(?:-v2)?:(https://[^}]+)\}")
_OBJECT_URLS = (
    re.compile(r"s3://(?P<bucket>[a-z0-9.-]{3,63})/(?P<key>.+)"),
    re.compile(r"https://s3[.-][a-z0-9.-]*?(?:amazonaws\.com(?:\.cn)?)/(?P<bucket>[a-z0-9.-]{3,63})/(?P<key>.+)"),
    re.compile(r"https://s3\.[a-zA-Z0-9.:-]+/(?P<bucket>[a-z0-9.-]{3,63})/(?P<key>.+)"),
    re.compile(r"https://(?P<bucket>[a-z0-9.-]{3,63})\.s3[.-][a-z0-9.-]*amazonaws\.com(?:\.cn)?/(?P<key>.+)"),
)


def object_of(url: str) -> tuple[str, str]:
    """(bucket, key) of an `s3://`, path-style or virtual-hosted `https://` URL. Raises InvalidRequestException."""
    for pattern in _OBJECT_URLS:
        found = pattern.fullmatch(url)
        if found:
            return found["bucket"], found["key"]
    raise invalid(f"'{url}' is not the URL of an object: expected s3://bucket/key or https://s3.<region>…/bucket/key")


def check(text: str) -> None:
    """Refuse a document that is not JSON within the limits.

    Raises InvalidRequestException or LimitExceededException.
    """
    if len(text) > MAX_DOCUMENT:
        raise limit_exceeded(f"The job document has {len(text)} characters; the limit is {MAX_DOCUMENT}")
    try:
        payload.parse(text, MAX_DEPTH)
    except payload.PayloadError as error:
        raise invalid(f"The job document is invalid: {error}") from None


def fetched(read: Callable[[str, str], bytes], url: str) -> str:
    """The text of a `documentSource`. `read`: (bucket, key) -> bytes, raising ApiError, KeyError or OSError."""
    bucket, key = object_of(url)
    try:
        data = read(bucket, key)
    except (ApiError, KeyError, OSError):
        raise invalid(f"The job document at '{url}' cannot be read") from None
    if len(data) > MAX_DOCUMENT:
        raise limit_exceeded(f"The job document at '{url}' has {len(data)} bytes; the limit is {MAX_DOCUMENT}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid(f"The job document at '{url}' is not UTF-8") from None


def has_placeholder(text: str) -> bool:
    """Whether the document asks for presigned URLs, so that a role is mandatory (section 4.1)."""
    return _PLACEHOLDER.search(text) is not None


def for_device(text: str, presign: Presign | None = None, expires: int = 3600) -> Any:
    """The document as a device receives it: null members dropped, placeholders replaced by fresh URLs.

    Treat the result as read-only: it is shared between callers. Without a `presign` placeholders stay as they are.
    """
    if presign is not None and "${aws:iot:s3-presigned-url" in text:

        def url(match: re.Match[str]) -> str:
            return json.dumps(presign(*object_of(match[1]), expires))[1:-1]

        return json.loads(_PLACEHOLDER.sub(url, text), object_pairs_hook=_without_nulls)
    return _parsed(text)


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_nulls)


def _without_nulls(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if value is not None}
