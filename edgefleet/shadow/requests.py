# SPDX-License-Identifier: Apache-2.0
"""Checking shadow requests (aws-iot-protocol.md sections 9.2-9.4). Raises ShadowError with the service's wording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgefleet import payload
from edgefleet.messages import compact
from edgefleet.shadow.document import SECTIONS

MAX_DOCUMENT = 8192  # bytes of `state`, as compact UTF-8 JSON
MAX_PAYLOAD = 128 * 1024  # bytes of a request, before it is parsed at all
MAX_TOKEN = 64  # bytes
MAX_LEVELS = 8  # below `desired` and `reported`; the message of the service says 6
_PARSED_LEVELS = 64  # of a whole request: what is deeper is not even parsed


class ShadowError(Exception):
    """A refused request. `code`: HTTP-like number of section 9.4; `token`: to echo, if the request got so far."""

    def __init__(self, code: int, message: str, token: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.token = token


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """`state` has `desired` and/or `reported`, each an object or None (remove the section)."""

    state: dict[str, Any]
    version: int | None
    token: str | None


def token(data: bytes) -> str | None:
    """The clientToken of a get or delete request, whose payload may be empty."""
    return _token(_object(data)) if data else None


def update(data: bytes) -> UpdateRequest:
    """A checked update request."""
    body = _object(data)
    echo = _token(body)
    if "state" not in body:
        raise ShadowError(400, "Missing required node: state", echo)
    state = body["state"]
    if not isinstance(state, dict):
        raise ShadowError(400, "State node must be an object", echo)
    sections = {name: state[name] for name in SECTIONS if name in state}
    for name, section in sections.items():
        if section is not None and not isinstance(section, dict):
            raise ShadowError(400, f"{name.capitalize()} node must be an object", echo)
    version = body.get("version")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise ShadowError(400, "Invalid version", echo)
    for section in sections.values():
        if section is not None and _levels(section) - 1 > MAX_LEVELS:
            raise ShadowError(400, "JSON contains too many levels of nesting; maximum is 6", echo)
        if _null_in_array(section):
            raise ShadowError(400, "State contains an invalid node", echo)
    check_size(sections, echo)
    return UpdateRequest(sections, version, echo)


def check_size(state: dict[str, Any], echo: str | None) -> None:
    """Refuse a `state` above the limit: of a request, or of the document that would result."""
    if len(compact(state)) > MAX_DOCUMENT:
        raise ShadowError(413, "The payload exceeds the maximum size allowed", echo)


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_PAYLOAD:
        raise ShadowError(413, "The payload exceeds the maximum size allowed")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ShadowError(415, "Unsupported documented encoding; supported encoding is UTF-8") from None
    try:
        body = payload.parse(text, _PARSED_LEVELS)
    except payload.TooDeep:
        raise ShadowError(400, "JSON contains too many levels of nesting; maximum is 6") from None
    except payload.PayloadError:
        raise ShadowError(400, "Payload contains invalid json") from None
    if not isinstance(body, dict):
        raise ShadowError(400, "Payload contains invalid json")
    return body


def _token(body: dict[str, Any]) -> str | None:
    value = body.get("clientToken")
    if value is None:
        return None
    if not isinstance(value, str) or len(value.encode()) > MAX_TOKEN:
        raise ShadowError(400, "Invalid clientToken")
    return value


def _levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_levels, inner), default=0)


def _null_in_array(value: Any) -> bool:
    if isinstance(value, list):
        return any(inner is None or _null_in_array(inner) for inner in value)
    return isinstance(value, dict) and any(map(_null_in_array, value.values()))
