# SPDX-License-Identifier: Apache-2.0
"""Query text to a checked tree (aws-iot-protocol.md section 8.3).

The tree is built bottom-up while the LALR parser reads, so that no nesting of parentheses can exhaust the stack; and
since parentheses and double negation leave no node, its depth is bounded by the twelve terms a query may have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from importlib import resources
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from edgefleet.errors import ApiError
from edgefleet.index import values

MAX_QUERY = 1000  # characters
MAX_TERMS = 12
MAX_STARS = 2  # in a term
MAX_MARKS = 5  # question marks in a term
MAX_LEADING = 100  # characters of a term that begins with a wildcard


class Wild(Enum):
    """A wildcard in a pattern."""

    ANY = "*"  # any number of characters
    ONE = "?"  # exactly one


ANY, ONE = Wild.ANY, Wild.ONE


@dataclass(frozen=True, slots=True)
class Everything:
    """`*`: all things."""


@dataclass(frozen=True, slots=True)
class Exists:
    """`field:*`."""

    field: str | None


@dataclass(frozen=True, slots=True)
class Equals:
    """A word or phrase, folded. `field` None: in any searchable field."""

    field: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Like:
    """A word with wildcards: folded text, ANY and ONE in sequence."""

    field: str | None
    parts: tuple[str | Wild, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """A range; None is an open end. Both numbers: compared as numbers, otherwise as folded text."""

    field: str | None
    low: float | str | None
    high: float | str | None
    with_low: bool
    with_high: bool


@dataclass(frozen=True, slots=True)
class Not:
    node: Node


@dataclass(frozen=True, slots=True)
class And:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    nodes: tuple[Node, ...]


Leaf = Everything | Exists | Equals | Like | Between
Node = Leaf | Not | And | Or


def bad_query(message: str) -> ApiError:
    """InvalidQueryException."""
    return ApiError("InvalidQueryException", message, 400)


def parse(text: str) -> Node:
    """The tree of a query. Raises InvalidQueryException with the position, the limit or the unknown field."""
    if len(text) > MAX_QUERY:
        raise bad_query(f"The query has {len(text)} characters; the limit is {MAX_QUERY}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad_query("The query is not valid Unicode") from None
    try:
        tree: Any = _parser().parse(text)
    except UnexpectedInput as error:
        raise bad_query(_explain(error, text)) from None
    terms = _limited(tree)
    if sum(1 for one in terms if isinstance(one, Like) and not isinstance(one.parts[0], str)) > 1:
        raise bad_query("Only one term of a query may begin with a wildcard")
    node: Node = tree
    return node


def _limited(node: Node) -> list[Leaf]:
    """All terms of a tree, unless they are too many. Without recursion: the tree is not known to be flat before."""
    found: list[Leaf] = []
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, And | Or):
            stack.extend(one.nodes)
        elif isinstance(one, Not):
            stack.append(one.node)
        else:
            found.append(one)
    if len(found) > MAX_TERMS:
        raise bad_query(f"The query has {len(found)} terms; the limit is {MAX_TERMS}")
    return found


def _explain(error: UnexpectedInput, text: str) -> str:
    position = error.pos_in_stream
    ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    if ended or position is None:
        return "Invalid query: it ends too early"
    hint = "; quote or escape it" if isinstance(error, UnexpectedCharacters) else ""
    return f"Invalid query at character {position + 1}: '{text[position : position + 20]}' is not expected here{hint}"


_FIELD = re.compile(
    r"thingName|thingId|thingTypeName|thingGroupNames|attributes\..+"
    r"|shadow\.(?:name\.[^.]+\.)?(?:hasDelta|(?:desired|reported|delta|metadata)\..+)"
    r"|connectivity\.(?:connected|timestamp|disconnectReason|version|clientId|keepAliveDuration|cleanSession"
    r"|sessionExpiry)"
    r"|deviceDefender\..+",
    re.DOTALL,
)


def is_indexed(field: str) -> bool:
    """Whether a query may name the field (section 8.2)."""
    return _FIELD.fullmatch(field) is not None


def _field(token: Token) -> str:
    name = re.sub(r"\\(.)", r"\1", str(token))
    if not is_indexed(name):
        raise bad_query(f"The field '{name[:100]}' is not indexed")
    return name


class _Builder(Transformer[Token, Any]):
    """Called by the parser at each reduction, innermost first. A leaf gets its field when its colon is reduced."""

    def any_of(self, nodes: list[Node]) -> Node:
        return nodes[0] if len(nodes) == 1 else Or(_flat(Or, nodes))

    def all_of(self, nodes: list[Node]) -> Node:
        return nodes[0] if len(nodes) == 1 else And(_flat(And, nodes))

    def negation(self, nodes: list[Node]) -> Node:
        node = nodes[0]
        return node.node if isinstance(node, Not) else Not(node)

    def field_value(self, children: list[Any]) -> Node:
        _limited(children[1])
        return _with_field(children[1], _field(children[0]))

    def anywhere(self, nodes: list[Node]) -> Node:
        node = nodes[0]
        return Everything() if isinstance(node, Exists) else node

    def comparison(self, children: list[Token]) -> Node:
        field, relation, text = _field(children[0]), str(children[1]), str(children[2])
        limit = values.number(text)
        if limit is None:
            raise bad_query(f"The number '{text[:40]}' is out of range")
        if relation.startswith(">"):
            return Between(field, limit, None, relation == ">=", True)
        return Between(field, None, limit, True, relation == "<=")

    def phrase(self, tokens: list[Token]) -> Node:
        return Equals(None, values.fold(_unquoted(tokens[0])))

    def pattern(self, tokens: list[Token]) -> Node:
        return _pattern(str(tokens[0]))

    def geo(self, tokens: list[Token]) -> Node:
        raise bad_query("geo_distance queries are not supported here")

    def range(self, children: list[Any]) -> Node:
        opening, low, high, closing = children
        if isinstance(low, str) and isinstance(high, str):
            numbers = values.number(low), values.number(high)
            if None not in numbers:
                low, high = numbers
        elif low is None and high is not None:
            high = high if values.number(high) is None else values.number(high)
        elif high is None and low is not None:
            low = low if values.number(low) is None else values.number(low)
        elif low is None:
            return Exists(None)
        return Between(None, low, high, opening == "[", closing == "]")

    def bound(self, tokens: list[Token]) -> str | None:
        text = str(tokens[0])
        return None if text == "*" else values.fold(re.sub(r"\\(.)", r"\1", text))

    def quoted_bound(self, tokens: list[Token]) -> str:
        return values.fold(_unquoted(tokens[0]))


def _flat(kind: type[And] | type[Or], nodes: list[Node]) -> tuple[Node, ...]:
    """`a AND (b AND c)` as one node of three."""
    flat: list[Node] = []
    for node in nodes:
        flat.extend(node.nodes if isinstance(node, kind) else (node,))
    return tuple(flat)


def _with_field(node: Node, field: str) -> Node:
    """Give every term of a value, or of a group of values, its field."""
    if isinstance(node, And | Or):
        return type(node)(tuple(_with_field(one, field) for one in node.nodes))
    if isinstance(node, Not):
        return Not(_with_field(node.node, field))
    return node if isinstance(node, Everything) else replace(node, field=field)


def _unquoted(token: Token) -> str:
    return re.sub(r"\\(.)", r"\1", str(token)[1:-1])


def _pattern(raw: str) -> Node:
    """A word: escapes resolved, wildcards told apart from escaped stars and question marks."""
    parts: list[str | Wild] = []
    for escaped, plain in re.findall(r"\\(.)|([^\\])", raw):
        last = parts[-1] if parts else None
        if plain in ("*", "?"):
            parts.append(Wild(plain))
        elif isinstance(last, str):
            parts[-1] = last + (escaped or plain)
        else:
            parts.append(escaped or plain)
    parts = [values.fold(part) if isinstance(part, str) else part for part in parts]
    if parts == [ANY]:
        return Exists(None)
    if len(parts) == 1 and isinstance(parts[0], str):
        return Equals(None, parts[0])
    if parts.count(ANY) > MAX_STARS or parts.count(ONE) > MAX_MARKS:
        raise bad_query(f"A term may have at most {MAX_STARS} '*' and {MAX_MARKS} '?'")
    if not isinstance(parts[0], str) and len(raw) > MAX_LEADING:
        raise bad_query(f"A term that begins with a wildcard may have at most {MAX_LEADING} characters")
    return Like(None, tuple(parts))


@cache
def _parser() -> Lark:
    grammar = (resources.files("edgefleet.index") / "grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder(), maybe_placeholders=False)
