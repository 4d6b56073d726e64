# SPDX-License-Identifier: Apache-2.0
"""How values compare in the index: the one place that folds text and decides what is a number.

Source: aws-iot-protocol.md sections 8.2 (numbers in attributes are strings), 8.3 (values without regard to case).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Term(NamedTuple):
    """One searchable value of one field; the columns of `index_terms`."""

    field: str
    value: str
    shown: str | None
    number: float | None
    kind: str
    anywhere: bool


def fold(text: str) -> str:
    """Text as it is compared. NUL would end a pattern match early inside SQLite."""
    return text.replace("\0", "").lower()


def number(text: str) -> float | None:
    """The value of text that looks like a finite number, else None."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def canonical(value: int | float) -> str:
    """The text of a JSON number, the same for 5, 5.0 and 5e0."""
    return str(int(value)) if isinstance(value, int) or value.is_integer() else repr(value)


def term(field: str, value: str | int | float | bool, anywhere: bool) -> Term:
    """The index row of a simple JSON value."""
    if isinstance(value, bool):
        return Term(field, "true" if value else "false", None, None, "b", anywhere)
    if isinstance(value, str):
        folded = fold(value)
        return Term(field, folded, None if folded == value else value, number(folded), "s", anywhere)
    return Term(field, fold(canonical(value)), None, float(value), "n", anywhere)
