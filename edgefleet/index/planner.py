# SPDX-License-Identifier: Apache-2.0
"""A query tree as SQL over `index_terms`: each term an index look-up, joined by set operations.

All values are bound parameters; the text of the SQL is made of constants and our own numbering only.
"""

from __future__ import annotations

from typing import Any

from edgefleet.index import values
from edgefleet.index.query import ANY, And, Between, Equals, Everything, Like, Node, Not, Or, Wild

_ALL = "SELECT id AS thing FROM index_things"
_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def plan(node: Node) -> tuple[str, list[Any]]:
    """(`WITH … matching (thing) AS (…)`, its parameters): a clause to put in front of a SELECT that uses `matching`.

    Each node is a common table expression of its own, named by number. Subqueries inside each other would be simpler,
    but SQLite's parser has room for about a dozen of them.
    """
    parts: list[str] = []
    parameters: list[Any] = []
    last = _add(node, parts, parameters)
    return f"WITH {', '.join(parts)}, matching (thing) AS (SELECT thing FROM {last})", parameters  # noqa: S608


def _add(node: Node, parts: list[str], parameters: list[Any]) -> str:
    """Append the tables of a node, its own last, and return the name of that. The tree is a few dozen levels deep."""
    if isinstance(node, And | Or):
        inner = [_add(one, parts, parameters) for one in node.nodes]
        sql = (" INTERSECT " if isinstance(node, And) else " UNION ").join(f"SELECT thing FROM {one}" for one in inner)  # noqa: S608
    elif isinstance(node, Not):
        sql = f"{_ALL} EXCEPT SELECT thing FROM {_add(node.node, parts, parameters)}"  # noqa: S608
    elif isinstance(node, Everything):
        sql = _ALL
    else:
        sql = "SELECT thing FROM index_terms WHERE "
        if node.field is None:
            sql += "anywhere = 1"
        else:
            sql += "field = ?"
            parameters.append(node.field)
        for condition, *bound in _conditions(node):
            sql += f" AND {condition}"
            parameters.extend(bound)
    name = f"n{len(parts)}"
    parts.append(f"{name} (thing) AS ({sql})")
    return name


def _conditions(leaf: Node) -> list[tuple[Any, ...]]:
    """(SQL, parameter …) of each condition on the value of a term; none for `field:*`."""
    if isinstance(leaf, Equals):
        return [_equals(leaf.text)]
    if isinstance(leaf, Like):
        return _like(leaf.parts)
    if isinstance(leaf, Between):
        return _between(leaf)
    return []


def _equals(text: str) -> tuple[Any, ...]:
    """`1.0` finds the number 1 too, but not the text `1`: that may be a version."""
    number = values.number(text)
    spelled = None if number is None else values.fold(values.canonical(number))
    if spelled is None or spelled == text:
        return "value = ?", text
    return "(value = ? OR value = ? AND kind = 'n')", text, spelled


def _like(parts: tuple[str | Wild, ...]) -> list[tuple[Any, ...]]:
    """GLOB, whose own special characters are put in brackets; a literal beginning narrows the index look-up."""
    glob = ""
    for part in parts:
        if isinstance(part, str):
            glob += "".join(f"[{one}]" if one in "*?[" else one for one in part)
        else:
            glob += "*" if part is ANY else "?"
    conditions: list[tuple[Any, ...]] = [("value GLOB ?", glob)]
    first = parts[0]
    if isinstance(first, str) and ord(first[-1]) < _LAST:
        following = ord(first[-1]) + 1
        if following in _SURROGATES:  # they cannot be encoded
            following = _SURROGATES.stop
        conditions.append(("value >= ? AND value < ?", first, first[:-1] + chr(following)))
    return conditions


def _between(leaf: Between) -> list[tuple[Any, ...]]:
    column = "value" if isinstance(leaf.low, str) or isinstance(leaf.high, str) else "number"
    conditions: list[tuple[Any, ...]] = [("number IS NOT NULL",)] if column == "number" else []
    if leaf.low is not None:
        conditions.append((f"{column} {'>=' if leaf.with_low else '>'} ?", leaf.low))
    if leaf.high is not None:
        conditions.append((f"{column} {'<=' if leaf.with_high else '<'} ?", leaf.high))
    return conditions
