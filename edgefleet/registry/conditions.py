# SPDX-License-Identifier: Apache-2.0
"""The Condition member of a policy statement. Pure.

Everything a policy may say here is either understood or refused when the policy is created: a condition that is
skipped would silently widen an Allow. Source: aws-iot-protocol.md section 7.8; IAM's rules for absent keys (a negated
operator is true, any other false; ForAllValues is true for the empty set).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgefleet.registry import globs

# What is known of a connection: normalised variable name -> its value, or the values of a multi-valued one.
Context = Mapping[str, str | list[str]]

_SUBJECT = (
    r"country|organization|organizationalunit|distinguishednamequalifier|state|commonname|serialnumber|title|surname"
    r"|givenname|initials|pseudonym|generationqualifier"
)
_SET_KEY = re.compile(r"iot:connectattributes|iot:certificate\.availablekeys|iot:certificate\..*\.list")
_KEYS = re.compile(
    r"iot:clientid|aws:sourceip|iot:certificateid|iot:domainname|iot:connectattributes"
    r"|iot:connection\.thing\.(thingname|thingtypename|isattached|attributes\[.+\])"
    r"|iot:certificate\.(serialnumber|availablekeys)"
    rf"|iot:certificate\.(subject|issuer)\.({_SUBJECT})(\.(\d+|list))?"
    r"|iot:certificate\.(subject|issuer)\.alternativename\."
    r"(rfc822name|dnsname|directoryname|uniformresourceidentifier|ipaddress)(\.(\d+|list))?"
)


@dataclass(frozen=True)
class _Operator:
    """matches(actual, wanted tokens without variables) for one pair; `negated` inverts the result over all wanted."""

    matches: Callable[[str, tuple[globs.Token, ...]], bool]
    negated: bool = False
    wildcards: bool = False


def _plain(tokens: tuple[globs.Token, ...]) -> str:
    return "".join(token.value if isinstance(token, globs.Wild) else token for token in tokens)


def _equals(actual: str, wanted: tuple[globs.Token, ...]) -> bool:
    return actual == _plain(wanted)


def _equals_ignoring_case(actual: str, wanted: tuple[globs.Token, ...]) -> bool:
    return actual.casefold() == _plain(wanted).casefold()


def _like(actual: str, wanted: tuple[globs.Token, ...]) -> bool:
    return globs.Glob(wanted).matches(actual)


def _in_network(actual: str, wanted: tuple[globs.Token, ...]) -> bool:
    try:
        return ipaddress.ip_address(actual) in ipaddress.ip_network(_plain(wanted), strict=False)
    except ValueError:
        return False  # a network that came out of a variable; a literal one was checked at creation


_OPERATORS = {
    "stringequals": _Operator(_equals),
    "stringnotequals": _Operator(_equals, negated=True),
    "stringequalsignorecase": _Operator(_equals_ignoring_case),
    "stringnotequalsignorecase": _Operator(_equals_ignoring_case, negated=True),
    "stringlike": _Operator(_like, wildcards=True),
    "stringnotlike": _Operator(_like, negated=True, wildcards=True),
    "bool": _Operator(_equals_ignoring_case),
    "ipaddress": _Operator(_in_network),
    "notipaddress": _Operator(_in_network, negated=True),
}
_SETS = {"": None, "forallvalues": all, "foranyvalue": any}


@dataclass(frozen=True)
class Condition:
    """One key under one operator."""

    operator: _Operator
    over: str  # "", "forallvalues" or "foranyvalue"
    if_exists: bool
    key: str
    wanted: tuple[tuple[globs.Token, ...], ...]

    def holds(self, context: Context, lookup: Callable[[str], str | None]) -> bool | None:
        """Whether it is true; None if a wanted value has a variable that cannot be resolved."""
        wanted = []
        for tokens in self.wanted:
            bound = globs.substitute(tokens, lookup)
            if bound is None:
                return None
            wanted.append(bound)
        actual = context.get(self.key)
        if self.over:
            values = [] if actual is None else actual if isinstance(actual, list) else [actual]
            return (all if self.over == "forallvalues" else any)(self._one(value, wanted) for value in values)
        if actual is None:
            return self.if_exists or self.operator.negated
        return self._one(actual if isinstance(actual, str) else "", wanted)

    def _one(self, actual: str, wanted: list[tuple[globs.Token, ...]]) -> bool:
        return any(self.operator.matches(actual, tokens) for tokens in wanted) is not self.operator.negated


def parse(block: Any) -> tuple[Condition, ...]:
    """The conditions of a Condition member, all of which must hold. Raises ValueError naming the place."""
    if not isinstance(block, dict):
        raise ValueError("Condition: must be an object")
    conditions = []
    for operator_name, keys in block.items():
        if not isinstance(keys, dict) or not keys:
            raise ValueError(f"Condition.{operator_name}: must be an object of condition keys")
        for key, values in keys.items():
            try:
                conditions.append(_condition(operator_name, key, values))
            except ValueError as error:
                raise ValueError(f"Condition.{operator_name}.{key}: {error}") from None
    return tuple(conditions)


def _condition(operator_name: str, key: str, values: Any) -> Condition:
    over, _, plain_name = operator_name.lower().rpartition(":")
    if_exists = plain_name.endswith("ifexists")
    operator = _OPERATORS.get(plain_name.removesuffix("ifexists"))
    if operator is None or over not in _SETS:
        raise ValueError("unknown condition operator")
    normal_key = globs.variable_name(key)
    if not _KEYS.fullmatch(normal_key):
        raise ValueError("unknown condition key")
    if _SET_KEY.fullmatch(normal_key) and not over:
        raise ValueError("has several values, use the operator with ForAllValues: or ForAnyValue:")
    listed = values if isinstance(values, list) else [values]
    if not listed:
        raise ValueError("needs at least one value")
    wanted = []
    for value in listed:
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, str):
            raise ValueError("values must be strings")
        tokens = globs.parse(value, operator.wildcards)
        if operator.matches is _in_network and not any(isinstance(token, globs.Variable) for token in tokens):
            ipaddress.ip_network(_plain(tokens), strict=False)
        wanted.append(tokens)
    return Condition(operator, over, if_exists, normal_key, tuple(wanted))
