# SPDX-License-Identifier: Apache-2.0
"""Which topics and filters a client may name at all, before any policy is asked. Pure functions.

Source: aws-iot-protocol.md sections 2.4 (limits) and 2.5 (reserved namespace); MQTT 3.1.1 section 4.7.
"""

from __future__ import annotations

from enum import Enum

from edgeagent import topics
from edgefleet.broker.limits import Limits

_RULES = "$aws/rules/"
_EVENTS = "$aws/events/"
_FORMATS = ("json", "cbor")
_ANSWERS = ("accepted", "rejected")


class Kind(Enum):
    """What becomes of a PUBLISH."""

    ORDINARY = "routed to subscribers"
    RESERVED = "a request to the service, or Basic Ingest; never routed"
    FORBIDDEN = "not for clients"


def topic_problem(topic: str, limits: Limits) -> str | None:
    """Why `topic` is no legal topic name, or None."""
    if not topic:
        return "the topic is empty"
    if "+" in topic or "#" in topic:
        return "the topic contains a wildcard"
    return _size_problem(topic, limits)


def filter_problem(topic_filter: str, limits: Limits) -> str | None:
    """Why `topic_filter` is no legal topic filter, or None."""
    if not topic_filter:
        return "the filter is empty"
    levels = topic_filter.split("/")
    for n, level in enumerate(levels):
        if "#" in level and (level != "#" or n != len(levels) - 1):
            return "# may stand only alone in the last level"
        if "+" in level and level != "+":
            return "+ must fill its level"
    return _size_problem(topic_filter, limits)


def _size_problem(text: str, limits: Limits) -> str | None:
    if len(text.encode()) > limits.topic_bytes:
        return f"more than {limits.topic_bytes} bytes"
    slashes = text.count("/")
    if text.startswith(_RULES):
        slashes -= 3  # the prefix $aws/rules/<rule>/ does not count
    if slashes > limits.topic_slashes:
        return f"more than {limits.topic_slashes} slashes"
    return None


def has_wildcard(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter


def publish_kind(topic: str) -> Kind:
    """`topic` is legal by topic_problem()."""
    if topic[0] != "$":
        return Kind.ORDINARY
    return Kind.RESERVED if _is_request(topic.split("/")) else Kind.FORBIDDEN


def _is_request(levels: list[str]) -> bool:
    if levels[0] != "$aws" or "" in levels[:3]:
        return False
    match levels[1:]:
        case ["things", _, *rest]:
            return bool(rest) and not _is_answer(rest)
        case ["rules", _, *_]:
            return True
        case ["certificates", "create" | "create-from-csr", form]:
            return form in _FORMATS
        case ["provisioning-templates", _, "provision", form]:
            return form in _FORMATS
        case ["commands", "things" | "clients", _, "executions", _, "response", form]:
            return form in _FORMATS
        case ["device_location", _, "get_position_estimate"]:
            return True
    return False


def _is_answer(rest: list[str]) -> bool:
    """Whether what follows `$aws/things/{thing}/` is a topic on which only the service speaks."""
    match rest:
        case ["jobs", *_, last] if last in _ANSWERS:
            return True
        case ["jobs", last]:
            return last in ("notify", "notify-next") or last.startswith("notify-namespace-")
        case ["defender", "metrics", _, last]:
            return last in _ANSWERS
        case ["streams", _, "data" | "description" | "rejected", *_]:
            return True
    return False


def may_subscribe(topic_filter: str) -> bool:
    """Whether a client may subscribe to a filter at all; `topic_filter` is legal by filter_problem()."""
    if topic_filter[0] != "$":
        return True
    if topic_filter.startswith((topics.THINGS, _EVENTS, "$aws/device_location/", "$aws/sitewise/")):
        return True
    match topic_filter.split("/"):
        case ["$aws", "certificates", "create" | "create-from-csr", _, last]:
            return last in (*_ANSWERS, "+", "#")
        case ["$aws", "certificates", "create" | "create-from-csr", "#"]:
            return True
        case ["$aws", "provisioning-templates", _, "provision", _, last]:
            return last in (*_ANSWERS, "+", "#")
        case ["$aws", "provisioning-templates", _, "provision", "#"]:
            return True
        case ["$aws", "commands", "things" | "clients", _, "executions", _, kind, *_]:
            return kind in ("request", "response", "+", "#")
        case ["$aws", "commands", "things" | "clients", _, "executions", "#"]:
            return True
    return False
