# SPDX-License-Identifier: Apache-2.0
"""The policy language: parse, bind to a connection, decide. Pure.

    policy = parse('{"Version":"2012-10-17","Statement":[…]}')      # once a policy version
    bound = Bound([("name", policy)], context)                      # once a connection
    bound.decide("iot:Publish", names.arn("topic/a"))               # every message

Source: aws-iot-protocol.md section 7.8 and D.5. Choices made where AWS is silent:
* a statement with any variable that cannot be resolved is ignored as a whole, Allow and Deny alike;
* members, operators and condition keys that are not understood are refused at creation, never skipped;
* `Version` must be 2012-10-17: under the older one, variables would be plain text.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgefleet import payload
from edgefleet.errors import ApiError
from edgefleet.registry import conditions, globs
from edgefleet.registry.conditions import Condition, Context

CHARACTERS = 2048  # not counting white space
_TEXT_CHARACTERS = 404_600  # the model's policyDocument, white space included
_DEPTH = 6  # Statement list, statement, Condition, operator, value list
VERSION = "2012-10-17"
_ACTION = re.compile(r"\*|[a-zA-Z0-9-]+:[a-zA-Z*?]+")
_RESOURCE = re.compile(r"\*|arn:.+", re.DOTALL)
_SPACE = re.compile(r"\s+")


class Decision(enum.Enum):
    """Values are those of TestAuthorization's authDecision."""

    ALLOWED = "ALLOWED"
    EXPLICIT_DENY = "EXPLICIT_DENY"
    IMPLICIT_DENY = "IMPLICIT_DENY"


@dataclass(frozen=True)
class Statement:
    allow: bool
    actions: tuple[globs.Glob, ...]  # in lower case
    resources: tuple[tuple[globs.Token, ...], ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Policy:
    statements: tuple[Statement, ...]


def parse(document: str) -> Policy:
    """Check and read a policy document. Raises MalformedPolicyException 400 naming the statement and member."""
    try:
        return Policy(tuple(_statements(_load(document))))
    except ValueError as error:
        raise ApiError("MalformedPolicyException", f"Policy document is malformed: {error}", 400) from None


def _load(document: str) -> dict[str, Any]:
    if len(document) > _TEXT_CHARACTERS:
        raise ValueError(f"has {len(document)} characters, at most {_TEXT_CHARACTERS} are allowed")
    size = len(_SPACE.sub("", document))
    if size > CHARACTERS:
        raise ValueError(f"has {size} characters without white space, at most {CHARACTERS} are allowed")
    if payload.depth(document) > _DEPTH:
        raise ValueError("is nested too deeply")
    try:
        loaded = json.loads(document, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(loaded, dict):
        raise ValueError("must be a JSON object")
    _known_members(loaded, ("Version", "Id", "Statement"), "")
    if loaded.get("Version") != VERSION:
        raise ValueError(f'Version: must be "{VERSION}"')
    return loaded


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"member '{next(name for name in names if names.count(name) > 1)}' is given twice")
    return result


def _known_members(value: dict[str, Any], known: tuple[str, ...], prefix: str) -> None:
    for name in value:
        if name not in known:
            raise ValueError(f"{prefix}{name}: is not a member of AWS IoT policies")


def _statements(document: dict[str, Any]) -> Iterable[Statement]:
    listed = document.get("Statement")
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list) or not listed:
        raise ValueError("Statement: must be a list of at least one statement")
    for number, statement in enumerate(listed):
        if not isinstance(statement, dict):
            raise ValueError(f"Statement[{number}]: must be an object")
        try:
            yield _statement(statement)
        except ValueError as error:
            sid = statement.get("Sid")
            shown = f" (Sid '{sid}')" if isinstance(sid, str) else ""
            raise ValueError(f"Statement[{number}]{shown}: {error}") from None


def _statement(statement: dict[str, Any]) -> Statement:
    _known_members(statement, ("Sid", "Effect", "Action", "Resource", "Condition"), "")
    if not isinstance(statement.get("Sid", ""), str):
        raise ValueError("Sid: must be a string")
    effect = statement.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise ValueError('Effect: must be "Allow" or "Deny"')
    actions = []
    for action in _texts(statement, "Action"):
        if not _ACTION.fullmatch(action):
            raise ValueError(f"Action: '{action}' is not an action, use for example iot:Publish or iot:*")
        actions.append(globs.Glob(globs.parse(action.lower())))
    resources = []
    for resource in _texts(statement, "Resource"):
        if not _RESOURCE.fullmatch(resource):
            raise ValueError(f"Resource: '{resource}' must be '*' or begin with 'arn:'")
        try:
            resources.append(globs.parse(resource))
        except ValueError as error:
            raise ValueError(f"Resource: '{resource}': {error}") from None
    block = conditions.parse(statement["Condition"]) if "Condition" in statement else ()
    return Statement(effect == "Allow", tuple(actions), tuple(resources), block)


def _texts(statement: dict[str, Any], member: str) -> list[str]:
    value = statement.get(member)
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or not all(isinstance(text, str) for text in listed):
        raise ValueError(f"{member}: must be a string or a list of strings")
    return listed


@dataclass(frozen=True)
class _BoundStatement:
    policy: str
    allow: bool
    actions: tuple[globs.Glob, ...]
    resources: tuple[globs.Glob, ...]


class Bound:
    """Policies with the facts of one connection put in. Conditions depend on these facts only, so they are judged here;
    what is left for each message is to match action and resource."""

    def __init__(self, policies: Iterable[tuple[str, Policy]], context: Context) -> None:
        """policies: (name, policy) pairs. context: see `conditions.Context`."""
        self._statements = [
            bound
            for name, policy in policies
            for statement in policy.statements
            if (bound := _bind(name, statement, context)) is not None
        ]
        self._by_action: dict[str, list[_BoundStatement]] = {}

    def explain(self, action: str, resource_arn: str) -> tuple[Decision, list[str], list[str]]:
        """(decision, names of the policies that allow, names of those that deny)."""
        allowing: list[str] = []
        denying: list[str] = []
        for statement in self._of_action(action):
            names = allowing if statement.allow else denying
            if statement.policy not in names and any(glob.matches(resource_arn) for glob in statement.resources):
                names.append(statement.policy)
        decision = Decision.EXPLICIT_DENY if denying else Decision.ALLOWED if allowing else Decision.IMPLICIT_DENY
        return decision, allowing, denying

    def decide(self, action: str, resource_arn: str) -> Decision:
        """An explicit Deny wins, then any Allow; otherwise implicitly denied."""
        return self.explain(action, resource_arn)[0]

    def _of_action(self, action: str) -> list[_BoundStatement]:
        """The caller's actions are a handful of constants, so this stays small."""
        found = self._by_action.get(action)
        if found is None:
            lower = action.lower()
            found = [one for one in self._statements if any(glob.matches(lower) for glob in one.actions)]
            self._by_action[action] = found
        return found


def _bind(name: str, statement: Statement, context: Context) -> _BoundStatement | None:
    """None if the statement cannot match: a condition is false, or a variable cannot be resolved."""

    def lookup(variable: str) -> str | None:
        value = context.get(variable)
        return value if isinstance(value, str) else None

    resources = []
    for tokens in statement.resources:
        bound = globs.substitute(tokens, lookup)
        if bound is None:
            return None
        resources.append(globs.Glob(bound))
    for condition in statement.conditions:
        if not condition.holds(context, lookup):
            return None
    return _BoundStatement(name, statement.allow, statement.actions, tuple(resources))
