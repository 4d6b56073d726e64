# SPDX-License-Identifier: Apache-2.0
"""Calls operations as the HTTP front does, and holds both sides of each call against AWS's own service model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.model import Shape
from botocore.validate import ParamValidator

from edgefleet.messages import Outgoing
from edgefleet.store import Store, Tx


@functools.lru_cache(maxsize=4)
def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def _check(value: dict[str, Any], shape: Shape | None, what: str) -> None:
    if shape is None:
        assert not value, f"{what}: has no members, got {value}"
        return
    report = ParamValidator().validate(value, shape)
    assert not report.has_errors(), f"{what}: {report.generate_report()}"


class Api:
    """`api("CreateThing", thingName=…)` runs one operation in its own transaction."""

    def __init__(self, store: Store, *operations: object, service: str = "iot") -> None:
        self.store = store
        self.sent: list[Outgoing] = []  # by the last call
        self._operations = operations
        self._service = service

    def __call__(self, operation: str, **members: Any) -> dict[str, Any]:
        model = _model(self._service).operation_model(operation)
        _check(members, model.input_shape, f"{operation} request")
        method: Callable[..., dict[str, Any]] = next(
            getattr(implementation, xform_name(operation))
            for implementation in self._operations
            if hasattr(implementation, xform_name(operation))
        )
        tx: Tx
        with self.store.transaction() as tx:
            result = method(tx, **members)
        self.sent = tx.outgoing
        _check(result, model.output_shape, f"{operation} response")
        return result
