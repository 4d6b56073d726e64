# SPDX-License-Identifier: Apache-2.0
"""Untrusted JSON: size, encoding and nesting are checked before anything recurses over it.

A device may send 128 KB of `[`; Python's parser would answer that with RecursionError, and so would every function
that walks the result. `parse` bounds the nesting first, by scanning the text once without recursion.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DIGITS = 300  # of an integer; the largest double has 309

# What has to be told apart to count nesting: a whole string (brackets in it do not count), or one bracket.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class PayloadError(ValueError):
    """Not UTF-8, not JSON, or a NaN or Infinity in it."""


class TooDeep(PayloadError):
    """Nested deeper than allowed."""


def depth(text: str) -> int:
    """The deepest nesting of objects and arrays in JSON text; `{}` is 1. Works on malformed text too."""
    level = deepest = 0
    for token in _TOKENS.finditer(text):
        first = token.group()[0]
        if first in "[{":
            level += 1
            deepest = max(deepest, level)
        elif first in "]}":
            level -= 1
    return deepest


def parse(data: bytes | str, max_depth: int) -> Any:
    """The value of JSON text nested at most `max_depth` deep (well below Python's recursion limit).

    Raises TooDeep, or PayloadError with a reason fit for a rejection.
    """
    try:
        if isinstance(data, bytes):
            data = data.decode("utf-8")
        else:
            data.encode("utf-8")
    except UnicodeError:
        raise PayloadError("the payload is not UTF-8") from None
    if depth(data) > max_depth:
        raise TooDeep(f"JSON contains too many levels of nesting; maximum is {max_depth}")
    try:
        value = json.loads(data, parse_constant=_refuse_constant, parse_float=_float, parse_int=_int)
        if "\\ud" in data or "\\uD" in data:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair could not be sent on
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the payload is not valid JSON: {error}") from None
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float | str:
    """Numbers outside the double range become strings, as the service stores them (section 9.3)."""
    value = float(text)
    return value if abs(value) != float("inf") else "Infinity" if value > 0 else "-Infinity"


def _int(text: str) -> int | float | str:
    return int(text) if len(text) <= MAX_DIGITS else _float(text)
