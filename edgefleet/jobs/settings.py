# SPDX-License-Identifier: Apache-2.0
"""Checking the configurations of CreateJob. All raise InvalidRequestException naming the member and its limit.

Source: aws-iot-protocol.md sections 4.1, 4.3-4.5.
"""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from typing import Any

from edgefleet.errors import invalid

MAX_RATE = 1000  # things a minute
MAX_MINUTES = 10080
MAX_RETRIES = 10
MAX_TEXT = 2028  # characters of a description or comment


def text(value: str | None, member: str) -> str | None:
    """A description or comment."""
    if value is not None:
        if len(value) > MAX_TEXT:
            raise invalid(f"{member} must have at most {MAX_TEXT} characters, not {len(value)}")
        if any(unicodedata.category(character)[0] == "C" for character in value):
            raise invalid(f"{member} must not contain control characters")
    return value


def timeout(config: dict[str, Any] | None) -> None:
    """`timeoutConfig`."""
    if config:
        _between(
            config.get("inProgressTimeoutInMinutes", 1), 1, MAX_MINUTES, "timeoutConfig.inProgressTimeoutInMinutes"
        )


def presigned(config: dict[str, Any] | None) -> None:
    """`presignedUrlConfig`."""
    if config:
        _between(config.get("expiresInSec", 3600), 60, 3600, "presignedUrlConfig.expiresInSec")


def rollout(config: dict[str, Any] | None) -> None:
    """`jobExecutionsRolloutConfig`."""
    if not config:
        return
    name = "jobExecutionsRolloutConfig"
    maximum = config.get("maximumPerMinute", MAX_RATE)
    _between(maximum, 1, MAX_RATE, f"{name}.maximumPerMinute")
    exponential = config.get("exponentialRate")
    if exponential is None:
        return
    base = exponential["baseRatePerMinute"]
    _between(base, 1, MAX_RATE, f"{name}.exponentialRate.baseRatePerMinute")
    if base > maximum:
        raise invalid(f"{name}.exponentialRate.baseRatePerMinute must not exceed maximumPerMinute")
    factor = Decimal(str(exponential["incrementFactor"]))
    if not Decimal("1.1") <= factor <= 5 or factor != round(factor, 1):
        raise invalid(f"{name}.exponentialRate.incrementFactor must be 1.1 to 5 with one decimal")
    criteria = exponential["rateIncreaseCriteria"]
    given = [member for member in ("numberOfNotifiedThings", "numberOfSucceededThings") if member in criteria]
    if len(given) != 1:
        raise invalid(
            f"{name}.exponentialRate.rateIncreaseCriteria needs exactly one of numberOfNotifiedThings, "
            "numberOfSucceededThings"
        )
    if criteria[given[0]] < 1:
        raise invalid(f"{name}.exponentialRate.rateIncreaseCriteria.{given[0]} must be at least 1")


def abort(config: dict[str, Any] | None) -> None:
    """`abortConfig`."""
    if config is None:
        return
    criteria = config["criteriaList"]
    if not criteria:
        raise invalid("abortConfig.criteriaList must have at least one criterion")
    _distinct([one["failureType"] for one in criteria], "abortConfig")
    for one in criteria:
        if one["failureType"] not in ("FAILED", "REJECTED", "TIMED_OUT", "ALL"):
            raise invalid("abortConfig failureType must be one of FAILED, REJECTED, TIMED_OUT, ALL")
        if one["action"] != "CANCEL":
            raise invalid("abortConfig action must be CANCEL")
        threshold = Decimal(str(one["thresholdPercentage"]))
        if not 0 < threshold <= 100 or threshold != round(threshold, 2):
            raise invalid("abortConfig thresholdPercentage must be above 0 and at most 100, with two decimals at most")
        if one["minNumberOfExecutedThings"] < 1:
            raise invalid("abortConfig minNumberOfExecutedThings must be at least 1")


def retry(config: dict[str, Any] | None) -> None:
    """`jobExecutionsRetryConfig`."""
    if config is None:
        return
    criteria = config["criteriaList"]
    if not 1 <= len(criteria) <= 2:
        raise invalid("jobExecutionsRetryConfig.criteriaList must have one or two criteria")
    types = [one["failureType"] for one in criteria]
    _distinct(types, "jobExecutionsRetryConfig")
    if not set(types) <= {"FAILED", "TIMED_OUT", "ALL"}:
        raise invalid("jobExecutionsRetryConfig failureType must be one of FAILED, TIMED_OUT, ALL")
    if "ALL" in types and len(types) > 1:
        raise invalid("jobExecutionsRetryConfig failureType ALL must stand alone")
    for one in criteria:
        _between(one["numberOfRetries"], 0, MAX_RETRIES, "jobExecutionsRetryConfig numberOfRetries")
    if sum(one["numberOfRetries"] for one in criteria) > MAX_RETRIES:
        raise invalid(f"jobExecutionsRetryConfig numberOfRetries must be at most {MAX_RETRIES} together")


def _between(value: int, low: int, high: int, member: str) -> None:
    if not low <= value <= high:
        raise invalid(f"{member} must be between {low} and {high}, not {value}")


def _distinct(types: list[str], member: str) -> None:
    if len(set(types)) != len(types):
        raise invalid(f"{member} has a failureType twice")
