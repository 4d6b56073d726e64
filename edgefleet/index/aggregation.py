# SPDX-License-Identifier: Apache-2.0
"""Statistics over the values of one field. Pure (aws-iot-protocol.md section 8.4)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from edgefleet.index.values import Term

DEFAULT_PERCENTS = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0)


def statistics(terms: Sequence[Term]) -> dict[str, Any]:
    """Strings: only `count`. Booleans: as 0 and 1. Numbers: everything, with the variance of a whole population."""
    numbers = [one.number for one in terms if one.kind == "n" and one.number is not None]
    flags = [float(one.value == "true") for one in terms if one.kind == "b"]
    if numbers:
        shown = _basic(numbers)
        mean = math.fsum(numbers) / len(numbers)
        variance = math.fsum((one - mean) ** 2 for one in numbers) / len(numbers)
        shown["sumOfSquares"] = math.fsum(one * one for one in numbers)
        shown["variance"] = variance
        shown["stdDeviation"] = math.sqrt(variance)
        return shown
    return _basic(flags) if flags else {"count": len(terms)}


def _basic(numbers: Sequence[float]) -> dict[str, Any]:
    total = math.fsum(numbers)
    return {
        "count": len(numbers),
        "average": total / len(numbers),
        "sum": total,
        "minimum": min(numbers),
        "maximum": max(numbers),
    }


def percentiles(terms: Sequence[Term], percents: Sequence[float]) -> list[dict[str, float]]:
    """Interpolated between neighbours; empty when there is no number."""
    numbers = sorted(one.number for one in terms if one.kind == "n" and one.number is not None)
    if not numbers:
        return []
    found = []
    for percent in percents:
        place = percent / 100 * (len(numbers) - 1)
        below = math.floor(place)
        above = min(below + 1, len(numbers) - 1)
        found.append(
            {"percent": percent, "value": numbers[below] + (numbers[above] - numbers[below]) * (place - below)}
        )
    return found


def buckets(terms: Sequence[Term], maximum: int) -> list[dict[str, Any]]:
    """The most frequent values first; those that differ only in case are one."""
    counted = Counter(one.value for one in terms)
    shown = {one.value: one.shown or one.value for one in terms}
    ordered = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"keyValue": shown[value], "count": times} for value, times in ordered[:maximum]]
