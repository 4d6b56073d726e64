# SPDX-License-Identifier: Apache-2.0
"""The constraints of the service models: required, length and range, enum, pattern.

botocore checks only some of them before it sends, and other clients none, so the server has to (fleet.md, B.4).
Patterns are Java's; they are translated to Python's and always cover the whole value.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from botocore.model import Shape, StructureShape

_SHOWN = 128  # characters of a wrong value that an error message repeats


def violations(shape: StructureShape, members: Mapping[str, Any]) -> list[str]:
    """Every broken constraint of parsed `members`, in the service's words (section 2.10). Empty if all is well."""
    return list(_structure(shape, members, ""))


def _structure(shape: StructureShape, members: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if name not in members:
            yield f"Value null at '{path}{name}' failed to satisfy constraint: Member must not be null"
    for name, value in members.items():
        yield from _value(shape.members[name], value, path + name)


def _value(shape: Shape, value: Any, path: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "structure":
        yield from _structure(shape, value, path + ".")  # type: ignore[arg-type]
    elif kind == "list":
        yield from _bounds(shape, value, len(value), "length", path)
        for n, item in enumerate(value):
            yield from _value(shape.member, item, f"{path}.{n + 1}.member")  # type: ignore[attr-defined]
    elif kind == "map":
        yield from _bounds(shape, value, len(value), "length", path)
        for key, item in value.items():
            yield from _value(shape.key, key, path + ".key")  # type: ignore[attr-defined]
            yield from _value(shape.value, item, f"{path}.{key}.member")  # type: ignore[attr-defined]
    elif kind == "string" and not shape.serialization.get("jsonvalue"):
        yield from _bounds(shape, value, len(value), "length", path)
        yield from _text(shape, value, path)
    elif kind == "blob":
        yield from _bounds(shape, None, len(value), "length", path)
    elif kind in ("integer", "long", "double", "float"):
        yield from _bounds(shape, value, value, "value", path)


def _bounds(shape: Shape, value: Any, size: float, what: str, path: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{_shown(shape, value)} at '{path}' failed to satisfy constraint: " + (
            f"Member must have {what} greater than or equal to {low}"
        )
    if high is not None and size > high:
        yield f"{_shown(shape, value)} at '{path}' failed to satisfy constraint: " + (
            f"Member must have {what} less than or equal to {high}"
        )


def _text(shape: Shape, value: str, path: str) -> Iterator[str]:
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        yield f"{_shown(shape, value)} at '{path}' failed to satisfy constraint: " + (
            f"Member must satisfy enum value set: [{', '.join(allowed)}]"
        )
    pattern = shape.metadata.get("pattern")
    # A value beyond its bound is reported for that alone: no need to run a pattern over it.
    if pattern and len(value) <= shape.metadata.get("max", sys.maxsize) and not _compiled(pattern).fullmatch(value):
        yield f"{_shown(shape, value)} at '{path}' failed to satisfy constraint: " + (
            f"Member must satisfy regular expression pattern: {pattern}"
        )


def _shown(shape: Shape, value: Any) -> str:
    if value is None or shape.metadata.get("sensitive") or isinstance(value, (list, dict)):
        return "Value"
    text = str(value)
    return f"Value '{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}'"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    translated = re.sub(r"\\p\{(\w+)\}", lambda match: _CLASSES.get(match[1]) or _category(match[1]), pattern)
    return re.compile(translated, re.ASCII)  # Java's \w and \d are ASCII


# POSIX classes of Java's regular expressions, ASCII only; as contents of a bracket expression.
_CLASSES = {"Graph": r"!-~", "Upper": "A-Z", "Digit": "0-9", "Cntrl": r"\x00-\x1f\x7f"}


@cache
def _category(name: str) -> str:
    """The code points of a Unicode category (`C`, `L`, `N`, `Z`) as contents of a bracket expression.

    Runs over all of Unicode, about 0.2 s, once a category and only when a request first needs it.
    """
    ranges: list[str] = []
    start = None
    for code in range(sys.maxunicode + 2):
        inside = code <= sys.maxunicode and unicodedata.category(chr(code)).startswith(name)
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            ranges.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = None
    if not ranges:
        raise ValueError(f"unknown character class \\p{{{name}}} in a service model")
    return "".join(ranges)
