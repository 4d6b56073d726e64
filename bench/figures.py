# SPDX-License-Identifier: Apache-2.0
"""How a benchmark tells its figures: to people line by line, last all as one line of JSON."""

from __future__ import annotations

import json
from typing import Any


def tell(found: dict[str, Any]) -> None:
    """Print figures by their names. A member that is a dict is a row of a table, one of such dicts a table."""
    _print(found)
    print(json.dumps(found))


def _print(found: dict[str, Any]) -> None:
    width = max(map(len, found))
    header: list[str] = []
    for name, value in found.items():
        if not isinstance(value, dict):
            print(f"{name:{width}} {value}")
        elif isinstance(next(iter(value.values())), dict):
            print(name)
            _print(value)
        else:
            if header != list(value):
                header = list(value)
                print(" " * width, *(f"{column:>16}" for column in header))
            print(f"{name:{width}}", *(f"{figure:>16,}" for figure in value.values()))
