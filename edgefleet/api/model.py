# SPDX-License-Identifier: Apache-2.0
"""Which operation a request names: the route table, made once at start from botocore's service models.

The service is chosen by the caller (from the SigV4 credential scope), because `iot` and `iot-jobs-data` share paths.
Paths are matched raw (percent-encoded), so a topic or name holding `%2F` stays one segment.
Source: aws-iot-protocol.md section 2.10 and Appendix B; the models are botocore's, the version is that installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore import xform_name
from botocore.model import OperationModel

from edgefleet.errors import ApiError

SERVICES = ("iot", "iot-data", "iot-jobs-data")
# Other names that clients put into the credential scope for a service of ours (section 2.10).
_SIGNING_ALIASES = {"iotdevicegateway": "iotdata", "iot-data": "iotdata"}


@dataclass(frozen=True)
class Operation:
    """One operation of a service. `method`: the name of the Python method that implements it."""

    service: str  # SigV4 signing name: "iot", "iotdata", "iot-jobs-data"
    name: str
    method: str
    model: OperationModel

    @property
    def status(self) -> int:
        return int(self.model.http.get("responseCode", 200))


@dataclass
class _Node:
    """A level of the path trie. Literals win over a parameter, a parameter over a greedy tail."""

    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    greedy: dict[str, tuple[str, Operation]] = field(default_factory=dict)  # HTTP method -> (member, operation)
    leaves: dict[str, tuple[tuple[str, ...], Operation]] = field(default_factory=dict)  # -> (members, operation)


class Model:
    """The route tables of all services. Immutable after construction, which takes about 50 ms."""

    def __init__(self, services: Iterable[str] = SERVICES) -> None:
        session = botocore.session.Session()
        self._roots: dict[str, _Node] = {}
        self.operations: dict[str, dict[str, Operation]] = {}  # signing name -> method name -> Operation
        for name in services:
            service = session.get_service_model(name)
            root = self._roots.setdefault(service.signing_name, _Node())
            table = self.operations.setdefault(service.signing_name, {})
            for operation_name in service.operation_names:
                operation = Operation(
                    service.signing_name,
                    operation_name,
                    xform_name(operation_name),
                    service.operation_model(operation_name),
                )
                table[operation.method] = operation
                _insert(root, operation)

    def service(self, signing_name: str) -> str | None:
        """The signing name we know a service under, or None if it is not served here."""
        name = _SIGNING_ALIASES.get(signing_name, signing_name)
        return name if name in self._roots else None

    def find(self, service: str, method: str, raw_path: str) -> tuple[Operation, dict[str, str]]:
        """The operation of `method` and `raw_path`, and its decoded path members.

        Raises ApiError UnknownOperationException 404.
        """
        segments = raw_path.removeprefix("/").removesuffix("/").split("/")
        found = _match(self._roots[service], method, segments, 0, ())
        if found is None:
            raise ApiError("UnknownOperationException", f"{service} has no operation {method} {raw_path[:200]}", 404)
        operation, members = found
        return operation, {name: unquote(value) for name, value in members.items()}


def _insert(root: _Node, operation: Operation) -> None:
    http: dict[str, Any] = operation.model.http
    uri: str = http["requestUri"]
    if "?" in uri:  # no such route in the models of today; a silent wrong match later would be worse than this
        raise ValueError(f"{operation.name}: fixed query strings in a route are not supported: {uri}")
    node, members = root, []
    for segment in uri.strip("/").split("/"):
        if segment.startswith("{") and segment.endswith("+}"):
            node.greedy[http["method"]] = (segment[1:-2], operation)
            return
        if segment.startswith("{"):
            members.append(segment[1:-1])
            if node.parameter is None:
                node.parameter = _Node()
            node = node.parameter
        else:
            node = node.literals.setdefault(segment, _Node())
    if http["method"] in node.leaves:
        raise ValueError(f"two operations share {http['method']} {uri}")
    node.leaves[http["method"]] = (tuple(members), operation)


def _match(
    node: _Node, method: str, segments: list[str], depth: int, values: tuple[str, ...]
) -> tuple[Operation, dict[str, str]] | None:
    if depth == len(segments):
        leaf = node.leaves.get(method)
        return None if leaf is None else (leaf[1], dict(zip(leaf[0], values, strict=True)))
    segment = segments[depth]
    literal = node.literals.get(segment)
    if literal is not None:
        found = _match(literal, method, segments, depth + 1, values)
        if found is not None:
            return found
    if node.parameter is not None and segment:
        found = _match(node.parameter, method, segments, depth + 1, (*values, segment))
        if found is not None:
            return found
    tail = node.greedy.get(method)
    return None if tail is None else (tail[1], {tail[0]: "/".join(segments[depth:])})
