# SPDX-License-Identifier: Apache-2.0
"""Intrinsic functions of provisioning templates: Ref, Fn::Join, Fn::Select, Fn::FindInMap, Fn::Split, Fn::Sub. Pure.

Expressions are compiled once, with every mistake that can be seen without parameters reported then, and evaluated
for each device. Source: aws-iot-protocol.md sections 6.4, D.7.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgefleet.errors import FleetError

# Parameters come from devices: without a bound, a template that repeats one could fill the memory.
TEXT_CHARACTERS = 65536
_SUB = re.compile(r"\$\{(!?)([^}]*)\}")

Text = Callable[[Mapping[str, str]], str]
Texts = Callable[[Mapping[str, str]], list[str]]


class Mistake(ValueError):
    """The template itself is wrong. `str(e)` begins with the member, as in `Resources.thing.Properties`."""


class Unresolved(FleetError):
    """The parameters at hand do not fit the template: one is missing, or a look-up with its value fails."""


@dataclass(frozen=True)
class Scope:
    """What expressions may refer to. `used` collects the parameters that are referred to."""

    parameters: frozenset[str]
    mappings: Mapping[str, Mapping[str, Mapping[str, str]]]
    used: set[str] = field(default_factory=set)
    join: bool = True  # Fn::Join is not allowed inside policies


def text(value: Any, where: str, scope: Scope) -> Text:
    """Compile what must become one string. Raises Mistake."""
    if isinstance(value, str):
        return lambda parameters: value
    name, argument = _function(value, where)
    where = f"{where}.{name}"
    if name == "Ref":
        return _reference(argument, where, scope)
    if name == "Fn::Join":
        return _join(argument, where, scope)
    if name == "Fn::Select":
        return _select(argument, where, scope)
    if name == "Fn::FindInMap":
        return _find_in_map(argument, where, scope)
    if name == "Fn::Sub":
        return _sub(argument, where, scope)
    raise Mistake(f"{where}: gives a list where one string is needed")


def texts(value: Any, where: str, scope: Scope) -> Texts:
    """Compile what must become a list of strings: a list of expressions, or Fn::Split. Raises Mistake."""
    if isinstance(value, list):
        parts = [text(part, f"{where}[{number}]", scope) for number, part in enumerate(value)]
        return lambda parameters: [part(parameters) for part in parts]
    name, argument = _function(value, where)
    if name != "Fn::Split":
        raise Mistake(f"{where}.{name}: gives one string where a list is needed")
    where = f"{where}.{name}"
    separator, source = _arguments(argument, 2, where, "[separator, text]")
    if not isinstance(separator, str) or not separator:
        raise Mistake(f"{where}[0]: the separator must be a string of at least one character")
    compiled = text(source, f"{where}[1]", scope)
    return lambda parameters: compiled(parameters).split(separator)


def _function(value: Any, where: str) -> tuple[str, Any]:
    known = ("Ref", "Fn::Join", "Fn::Select", "Fn::FindInMap", "Fn::Split", "Fn::Sub")
    if not isinstance(value, dict):
        raise Mistake(f"{where}: must be a string or a function, not {_kind(value)}")
    if len(value) != 1 or next(iter(value)) not in known:
        raise Mistake(
            f"{where}: must be one of {', '.join(known)}, not {', '.join(map(str, value)) or 'an empty object'}"
        )
    name: str = next(iter(value))
    return name, value[name]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        str: "a string",
    }
    return kinds.get(type(value), "something else")


def _arguments(argument: Any, count: int, where: str, form: str) -> list[Any]:
    if not isinstance(argument, list) or len(argument) != count:
        raise Mistake(f"{where}: must be {form}")
    return argument


def _reference(name: Any, where: str, scope: Scope) -> Text:
    if not isinstance(name, str):
        raise Mistake(f"{where}: must be the name of a parameter")
    if name not in scope.parameters:
        raise Mistake(f"{where}: '{name}' is not declared in Parameters")
    scope.used.add(name)

    def evaluate(parameters: Mapping[str, str]) -> str:
        try:
            return parameters[name]
        except KeyError:
            raise Unresolved(f"Cannot resolve reference value: {name}") from None

    return evaluate


def _join(argument: Any, where: str, scope: Scope) -> Text:
    if not scope.join:
        raise Mistake(f"{where}: is not allowed in a policy")
    separator, parts = _arguments(argument, 2, where, "[separator, [parts…]]")
    if not isinstance(separator, str):
        raise Mistake(f"{where}[0]: the separator must be a string")
    compiled = texts(parts, f"{where}[1]", scope)

    def evaluate(parameters: Mapping[str, str]) -> str:
        values = compiled(parameters)
        _bound(sum(map(len, values)) + len(separator) * len(values), where)
        return separator.join(values)

    return evaluate


def _select(argument: Any, where: str, scope: Scope) -> Text:
    index, choices = _arguments(argument, 2, where, "[index, [choices…]]")
    if isinstance(index, int) and not isinstance(index, bool):
        index = str(index)
    number = text(index, f"{where}[0]", scope)
    compiled = texts(choices, f"{where}[1]", scope)

    def evaluate(parameters: Mapping[str, str]) -> str:
        chosen, values = number(parameters), compiled(parameters)
        if not (chosen.isascii() and chosen.isdigit() and len(chosen) < 6 and int(chosen) < len(values)):
            raise Unresolved(f"{where}: index '{chosen[:80]}' does not choose one of {len(values)} values")
        return values[int(chosen)]

    return evaluate


def _find_in_map(argument: Any, where: str, scope: Scope) -> Text:
    parts = _arguments(argument, 3, where, "[map, key, key]")
    compiled = [text(part, f"{where}[{number}]", scope) for number, part in enumerate(parts)]
    if isinstance(parts[0], str) and parts[0] not in scope.mappings:
        raise Mistake(f"{where}[0]: '{parts[0]}' is not in Mappings")

    def evaluate(parameters: Mapping[str, str]) -> str:
        table, top, second = (part(parameters) for part in compiled)
        try:
            return scope.mappings[table][top][second]
        except KeyError:
            raise Unresolved(f"{where}: Mappings has no {table[:80]}.{top[:80]}.{second[:80]}") from None

    return evaluate


def _sub(argument: Any, where: str, scope: Scope) -> Text:
    """`${!X}` is the text `${X}`; `${X}` is a variable given here, else a parameter."""
    source, variables = argument, {}
    if isinstance(argument, list):
        source, variables = _arguments(argument, 2, where, "a string or [text, {variable: value}]")
        if not isinstance(variables, dict):
            raise Mistake(f"{where}[1]: must be an object of variables")
    if not isinstance(source, str):
        raise Mistake(f"{where}: the text must be a string")
    known = {name: text(value, f"{where}[1].{name}", scope) for name, value in variables.items()}
    parts: list[Text] = []
    position = 0
    for found in _SUB.finditer(source):
        parts.append(text(source[position : found.start()], where, scope))
        escaped, name = found.groups()
        if escaped:
            parts.append(text("${" + name + "}", where, scope))
        else:
            parts.append(known.get(name) or _reference(name, where, scope))
        position = found.end()
    parts.append(text(source[position:], where, scope))

    def evaluate(parameters: Mapping[str, str]) -> str:
        values = [part(parameters) for part in parts]
        _bound(sum(map(len, values)), where)
        return "".join(values)

    return evaluate


def _bound(characters: int, where: str) -> None:
    if characters > TEXT_CHARACTERS:
        raise Unresolved(f"{where}: gives {characters} characters, at most {TEXT_CHARACTERS} are allowed")
