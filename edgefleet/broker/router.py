# SPDX-License-Identifier: Apache-2.0
"""Who is subscribed to a topic. Filters without wildcards are one dict look-up, the others a trie.

Cost of match(): O(1) for the first kind, O(3^levels) at worst for the second, levels <= 8; independent of the number
of subscriptions that do not match.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from edgefleet.broker.rules import has_wildcard

S = TypeVar("S", bound=Hashable)


class _Node(Generic[S]):
    __slots__ = ("below", "here", "rest")

    def __init__(self) -> None:
        self.below: dict[str, _Node[S]] = {}
        self.here: dict[S, int] = {}  # filters that end in this level
        self.rest: dict[S, int] = {}  # filters whose next level is `#`

    def empty(self) -> bool:
        return not (self.below or self.here or self.rest)


class Router(Generic[S]):
    """A multimap from topic filter to subscriber with the granted QoS."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[S, int]] = {}
        self._root: _Node[S] = _Node()

    def add(self, topic_filter: str, subscriber: S, qos: int) -> None:
        """Add, or replace the QoS. `topic_filter` is legal."""
        if not has_wildcard(topic_filter):
            self._exact.setdefault(topic_filter, {})[subscriber] = qos
            return
        node = self._root
        for level in topic_filter.split("/"):
            if level == "#":
                node.rest[subscriber] = qos
                return
            node = node.below.setdefault(level, _Node())
        node.here[subscriber] = qos

    def remove(self, topic_filter: str, subscriber: S) -> None:
        """Remove, and prune what has become empty. Unknown subscriptions are ignored."""
        if not has_wildcard(topic_filter):
            subscribers = self._exact.get(topic_filter)
            if subscribers is not None:
                subscribers.pop(subscriber, None)
                if not subscribers:
                    del self._exact[topic_filter]
            return
        path = [self._root]
        levels = topic_filter.split("/")
        for level in levels:
            if level == "#":
                break
            node = path[-1].below.get(level)
            if node is None:
                return
            path.append(node)
        (path[-1].rest if levels[-1] == "#" else path[-1].here).pop(subscriber, None)
        for depth in range(len(path) - 1, 0, -1):
            if not path[depth].empty():
                break
            del path[depth - 1].below[levels[depth - 1]]

    def match(self, topic: str) -> dict[S, int]:
        """Subscribers of `topic`, each once, with the highest QoS of its matching filters (MQTT 3.1.1, 3.3.5-1).

        A wildcard in the first level does not reach topics that begin with `$`; `a/#` does not match `a`
        (aws-iot-protocol.md sections 0.21, 2.5).
        """
        found: dict[S, int] = dict(self._exact.get(topic, ()))
        root = self._root
        if not root.empty():
            levels = topic.split("/")
            if topic[:1] == "$":
                node = root.below.get(levels[0])
                if node is not None:
                    self._walk(node, levels, 1, found)
            else:
                self._walk(root, levels, 0, found)
        return found

    def _walk(self, node: _Node[S], levels: list[str], depth: int, found: dict[S, int]) -> None:
        if depth == len(levels):
            _merge(node.here, found)
            return
        if node.rest:
            _merge(node.rest, found)
        for level in (levels[depth], "+"):
            below = node.below.get(level)
            if below is not None:
                self._walk(below, levels, depth + 1, found)


def _merge(subscribers: dict[S, int], found: dict[S, int]) -> None:
    for subscriber, qos in subscribers.items():
        if found.get(subscriber, -1) < qos:
            found[subscriber] = qos
