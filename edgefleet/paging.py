# SPDX-License-Identifier: Apache-2.0
"""Opaque `nextToken`s. A token holds the key of the last row given out, never an offset, so that rows deleted or
added between two pages neither hide nor repeat others."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from edgefleet.errors import invalid

MAX_INTEGER = (1 << 63) - 1  # of the database
MAX_TOKEN = 2048  # characters; far above any token we issue


def encode(*key: Any) -> str:
    """A token for a JSON-able key."""
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(token: str | None, *types: type) -> list[Any] | None:
    """The key inside a token, or None if there is no token. `types`: of each part.

    Raises InvalidRequestException for a token that `encode` did not make.
    """
    if token is None:
        return None
    try:
        if len(token) > MAX_TOKEN:
            raise ValueError
        key = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
        json.dumps(key, ensure_ascii=False).encode()  # no half surrogate pairs: the database could not take them
    except (ValueError, binascii.Error, RecursionError):
        raise invalid("Invalid nextToken") from None
    if not isinstance(key, list) or [type(part) for part in key] != list(types):
        raise invalid("Invalid nextToken")
    if any(isinstance(part, int) and not -MAX_INTEGER <= part <= MAX_INTEGER for part in key):
        raise invalid("Invalid nextToken")
    return key


def limit(value: int | None, maximum: int, name: str = "maxResults") -> int:
    """A page size within 1…maximum (the default). Raises InvalidRequestException."""
    if value is None:
        return maximum
    if not 1 <= value <= maximum:
        raise invalid(f"{name} must be between 1 and {maximum}, not {value}")
    return value
