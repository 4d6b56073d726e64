# SPDX-License-Identifier: Apache-2.0
"""Texts with wildcards and variables, as policies use them. Pure, and linear in the text matched.

`*` is any run of characters (`/` included), `?` is one; `${name}` is a variable whose value is always literal;
`${*}`, `${?}` and `${$}` are those characters themselves (aws-iot-protocol.md section 7.8).

A client chooses the topics that are matched, so nothing here may backtrack: the pattern is cut at its `*`, and each
piece is looked for once, from where the piece before it ended. Taking the leftmost place is always right.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable


class Wild(enum.Enum):
    ANY = "*"
    ONE = "?"


class Variable(str):
    """The name of a variable, normalised by `variable_name`."""

    __slots__ = ()


Token = str | Wild | Variable
_ESCAPES = ("*", "?", "$")
_ATTRIBUTE = re.compile(r"(iot:connection\.thing\.attributes)\[(.+)\]", re.IGNORECASE | re.DOTALL)


def variable_name(name: str) -> str:
    """Names are case-insensitive, except that of a thing attribute inside the brackets."""
    attribute = _ATTRIBUTE.fullmatch(name)
    return f"{attribute[1].lower()}[{attribute[2]}]" if attribute else name.lower()


def parse(text: str, wildcards: bool = True) -> tuple[Token, ...]:
    """Cut `text` into literals, wildcards and variables. wildcards=False: `*` and `?` are ordinary characters.

    Raises ValueError for `${` without `}` or with nothing in it.
    """
    tokens: list[Token] = []
    literal: list[str] = []

    def add(token: Token) -> None:
        if literal:
            tokens.append("".join(literal))
            literal.clear()
        tokens.append(token)

    position = 0
    while position < len(text):
        character = text[position]
        if text.startswith("${", position):
            end = text.find("}", position)
            name = text[position + 2 : end].strip()
            if end < 0 or not name:
                raise ValueError(f"'${{' at character {position + 1} has no name or no '}}'")
            if name in _ESCAPES:
                literal.append(name)
            else:
                add(Variable(variable_name(name)))
            position = end + 1
            continue
        if wildcards and character in "*?":
            add(Wild(character))
        else:
            literal.append(character)
        position += 1
    if literal:
        tokens.append("".join(literal))
    return tuple(tokens)


def substitute(tokens: tuple[Token, ...], lookup: Callable[[str], str | None]) -> tuple[Token, ...] | None:
    """Put values in the place of variables; None if one cannot be resolved."""
    if not any(isinstance(token, Variable) for token in tokens):
        return tokens
    result: list[Token] = []
    for token in tokens:
        if isinstance(token, Variable):
            value = lookup(token)
            if value is None:
                return None
            result.append(value)
        else:
            result.append(token)
    return tuple(result)


class Glob:
    """A pattern without variables, ready to match."""

    __slots__ = ("_first", "_fixed", "_last", "_middle")

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        pieces: list[list[Token]] = [[]]
        for token in tokens:
            if token is Wild.ANY:
                pieces.append([])
            else:
                pieces[-1].append(token)
        self._fixed = len(pieces) == 1
        self._first = _Piece(pieces[0])
        self._last = _Piece(pieces[-1])
        self._middle = [_Piece(piece) for piece in pieces[1:-1] if piece]

    def matches(self, text: str) -> bool:
        if self._fixed:
            return len(text) == self._first.length and self._first.at(text, 0)
        position, end = self._first.length, len(text) - self._last.length
        if position > end or not self._first.at(text, 0) or not self._last.at(text, end):
            return False
        for piece in self._middle:
            position = piece.find(text, position, end)
            if position < 0:
                return False
            position += piece.length
        return True


class _Piece:
    """Literals and `?`s: always matches the same number of characters."""

    __slots__ = ("_literal", "_pattern", "length")

    def __init__(self, tokens: list[Token]) -> None:
        self.length = sum(1 if isinstance(token, Wild) else len(token) for token in tokens)
        self._pattern: re.Pattern[str] | None = None
        self._literal = ""
        if any(isinstance(token, Wild) for token in tokens):
            # No quantifier in it, so a search costs at most text x piece, in C.
            source = "".join("." if isinstance(token, Wild) else re.escape(token) for token in tokens)
            self._pattern = re.compile(source, re.DOTALL)
        else:
            self._literal = "".join(token for token in tokens if isinstance(token, str))

    def at(self, text: str, position: int) -> bool:
        if self._pattern is not None:
            return self._pattern.match(text, position) is not None
        return text.startswith(self._literal, position)

    def find(self, text: str, start: int, end: int) -> int:
        """The leftmost place within text[start:end], or -1."""
        if self._pattern is not None:
            found = self._pattern.search(text, start, end)
            return found.start() if found else -1
        return text.find(self._literal, start, end)
