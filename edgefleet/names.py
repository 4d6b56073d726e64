# SPDX-License-Identifier: Apache-2.0
"""Identifiers and ARNs (aws-iot-protocol.md sections 1.1, 1.2). One place for each pattern."""

from __future__ import annotations

import re

from edgefleet.errors import invalid

REGION = "local-1"
ACCOUNT = "000000000000"

_PATTERNS = {
    "thingName": (r"[a-zA-Z0-9:_-]+", 128),
    "thingGroupName": (r"[a-zA-Z0-9:_-]+", 128),
    "thingTypeName": (r"[a-zA-Z0-9:_-]+", 128),
    "billingGroupName": (r"[a-zA-Z0-9:_-]+", 128),
    "jobId": (r"[a-zA-Z0-9_-]+", 64),
    "streamId": (r"[a-zA-Z0-9_-]+", 128),
    "shadowName": (r"[$a-zA-Z0-9:_-]+", 64),
    "templateName": (r"[0-9A-Za-z_-]+", 36),
    "policyName": (r"[\w+=,.@-]+", 128),
    "certificateId": (r"(0x)?[a-fA-F0-9]+", 64),
    "attributeName": (r"[a-zA-Z0-9_.,@/:#-]+", 128),
    "attributeValue": (r"[a-zA-Z0-9_.,@/:#=\[\]-]*", 800),
}
_COMPILED = {kind: (re.compile(pattern), limit) for kind, (pattern, limit) in _PATTERNS.items()}


def check(kind: str, value: object) -> str:
    """Return `value` if it is a legal `kind`, else raise InvalidRequestException naming kind, value and limit."""
    pattern, limit = _COMPILED[kind]
    if not isinstance(value, str) or len(value) > limit or not pattern.fullmatch(value):
        shown = value if isinstance(value, str) and len(value) <= 140 else f"{str(value)[:140]}…"
        raise invalid(
            f"1 validation error detected: Value '{shown}' at '{kind}' failed to satisfy constraint: "
            f"Member must have length at most {limit} and satisfy regular expression pattern: {pattern.pattern}"
        )
    return value


def arn(resource: str) -> str:
    """`resource`: `thing/N`, `thinggroup/N`, `cert/ID`, `policy/N`, `job/ID`, `stream/ID` …"""
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:{resource}"


def resource(value: str, kind: str) -> str:
    """The name inside an ARN of `kind` (`thing`, `thinggroup`, `cert` …). Raises InvalidRequestException."""
    head = arn(kind + "/")
    if not value.startswith(head):
        raise invalid(f"Invalid ARN '{value}': expected {head}<name>")
    return value[len(head) :]
