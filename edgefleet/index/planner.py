# SPDX-License-Identifier: Apache-2.0
"""A query tree as SQL over `index_terms`: each term an index look-up, joined by set operations.

All values are bound parameters; the text of the SQL is made of constants only.
"""

from __future__ import annotations

from typing import Any

from edgefleet.index import values
from edgefleet.index.query import ANY, And, Between, Equals, Everything, Exists, Leaf, Like, Node, Not, Or

_ALL = "SELECT id AS thing FROM index_things"
_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def plan(node: Node) -> tuple[str, list[Any]]:
    """(SQL that selects the column `thing`, its parameters). The tree is at most a dozen terms deep."""
    if isinstance(node, And | Or):
        joint = " INTERSECT " if isinstance(node, And) else " UNION "
        planned = [plan(inner) for inner in node.nodes]
        # A SELECT around each: SQLite takes no parentheses inside compound selects.
        sql = joint.join(f"SELECT thing FROM ({text})" for text, _ in planned)  # noqa: S608
        return sql, [one for _, parameters in planned for one in parameters]
    if isinstance(node, Not):
        text, parameters = plan(node.node)
        return f"{_ALL} EXCEPT SELECT thing FROM ({text})", parameters  # noqa: S608
    if isinstance(node, Everything):
        return _ALL, []
    where, parameters = _where(node)
    if node.field is None:
        return f"SELECT thing FROM index_terms WHERE anywhere = 1 AND {where}", parameters  # noqa: S608
    return f"SELECT thing FROM index_terms WHERE field = ? AND {where}", [node.field, *parameters]  # noqa: S608


def _where(leaf: Leaf) -> tuple[str, list[Any]]:
    if isinstance(leaf, Equals):
        return _equals(leaf.text)
    if isinstance(leaf, Like):
        return _like(leaf.parts)
    if isinstance(leaf, Between):
        return _between(leaf)
    assert isinstance(leaf, Exists)
    return "1", []


def _equals(text: str) -> tuple[str, list[Any]]:
    """`1.0` finds the number 1 too, but not the text `1`: that may be a version."""
    number = values.number(text)
    spelled = None if number is None else values.fold(values.canonical(number))
    if spelled is None or spelled == text:
        return "value = ?", [text]
    return "(value = ? OR value = ? AND kind = 'n')", [text, spelled]


def _like(parts: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """GLOB, whose own special characters are put in brackets; a literal beginning narrows the index look-up."""
    glob = "".join(
        "".join(f"[{one}]" if one in "*?[" else one for one in part)
        if isinstance(part, str)
        else "*" if part is ANY else "?"
        for part in parts
    )  # fmt: skip
    first = parts[0]
    if isinstance(first, str) and first and ord(first[-1]) < _LAST:
        following = ord(first[-1]) + 1
        if following in _SURROGATES:  # they cannot be encoded
            following = _SURROGATES.stop
        return "value >= ? AND value < ? AND value GLOB ?", [first, first[:-1] + chr(following), glob]
    return "value GLOB ?", [glob]


def _between(leaf: Between) -> tuple[str, list[Any]]:
    column = "value" if isinstance(leaf.low, str) or isinstance(leaf.high, str) else "number"
    conditions, parameters = ["number IS NOT NULL"] if column == "number" else [], []
    if leaf.low is not None:
        conditions.append(f"{column} {'>=' if leaf.with_low else '>'} ?")
        parameters.append(leaf.low)
    if leaf.high is not None:
        conditions.append(f"{column} {'<=' if leaf.with_high else '<'} ?")
        parameters.append(leaf.high)
    return " AND ".join(conditions), parameters
