# SPDX-License-Identifier: Apache-2.0
"""Requests and results by their shapes: parse the wire form, hold it against the model, write the answer.

Values handed to operations: text, int, float, bool, bytes (blobs), list, dict; timestamps as epoch seconds (float).
Source: aws-iot-protocol.md section 2.10 (texts of violations), botocore's rest-json conventions.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

from botocore.model import OperationModel, Shape, StructureShape

from edgefleet import payload
from edgefleet.api.validation import violations
from edgefleet.errors import ApiError, invalid

log = logging.getLogger(__name__)

MAX_DEPTH = 64  # nesting of a JSON body; no model goes deeper than 10
_INTEGER_BITS = {"integer": 31, "long": 63}


def parse(
    model: OperationModel,
    path: Mapping[str, str],
    query: Mapping[str, list[str]],
    headers: Mapping[str, str],
    body: bytes,
) -> dict[str, Any]:
    """The members of a request, typed and validated.

    path: decoded path members by wire name. query: decoded values by name. headers: by lower-case name.
    Members that the model does not know are ignored, as the service does (section 1.4).
    Raises ApiError InvalidRequestException naming every violation.
    """
    shape = model.input_shape
    if shape is None:
        return {}
    members: dict[str, Any] = {}
    payload_name = shape.serialization.get("payload")
    document: dict[str, Any] = {}
    if payload_name is not None:
        member = shape.members[payload_name]
        if member.type_name == "blob":
            members[payload_name] = body
        elif body:
            members[payload_name] = _from_json(member, _decode(body), payload_name)
    elif body:
        document = _decode(body)
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        wire_name = member.serialization.get("name", name)
        if location is None:
            if name != payload_name and document.get(wire_name) is not None:
                members[name] = _from_json(member, document[wire_name], name)
            continue
        text: str | None = None
        if location == "uri":
            text = path.get(wire_name)
        elif location == "querystring":
            values = query.get(wire_name)
            text = values[0] if values else None
        elif location == "header":
            text = headers.get(wire_name.lower())
        if text is not None:
            members[name] = _from_text(member, text, name, location)
    found = violations(shape, members)
    if found:
        head = f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected: "
        raise invalid(head + "; ".join(found[:10]))
    return members


def _decode(body: bytes) -> dict[str, Any]:
    try:
        document = payload.parse(body, MAX_DEPTH)
    except payload.PayloadError as error:
        raise invalid(f"The request body is refused: {error}") from None
    if not isinstance(document, dict):
        raise invalid("The request body must be a JSON object")
    return document


def _wrong(name: str, wanted: str) -> ApiError:
    return invalid(
        f"1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must be {wanted}"
    )


def _from_text(shape: Shape, text: str, name: str, location: str) -> Any:
    """A member of the path, the query string or a header."""
    kind = shape.type_name
    if kind in _INTEGER_BITS:
        try:
            return _whole(int(text), kind, name)
        except ValueError:
            raise _wrong(name, "a whole number") from None
    if kind in ("double", "float"):
        try:
            return float(text)
        except ValueError:
            raise _wrong(name, "a number") from None
    if kind == "boolean":
        if text not in ("true", "false"):
            raise _wrong(name, "true or false")
        return text == "true"
    if kind == "timestamp":
        return _timestamp(shape, text, name, "rfc822" if location == "header" else "iso8601")
    if shape.serialization.get("jsonvalue"):
        try:
            return json.loads(base64.b64decode(text, validate=True))
        except (ValueError, RecursionError):
            raise _wrong(name, "base64 of a JSON value") from None
    return text


def _timestamp(shape: Shape, value: Any, name: str, default: str) -> float:
    """Epoch seconds from the wire form (`timestampFormat` of the model, or the default of the location)."""
    form = shape.serialization.get("timestampFormat", default)
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, (int, float)):
            return float(value)
        if form == "rfc822":
            return parsedate_to_datetime(value).timestamp()
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        raise _wrong(name, f"a timestamp ({form})") from None


def _whole(value: int, kind: str, name: str) -> int:
    if not -(1 << _INTEGER_BITS[kind]) <= value < 1 << _INTEGER_BITS[kind]:
        raise _wrong(name, f"within the range of {kind}")
    return value


def _from_json(shape: Shape, value: Any, name: str) -> Any:
    """A value of the JSON body. `null` members count as absent."""
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            raise _wrong(name, "an object")
        result = {}
        for member_name, member in shape.members.items():  # type: ignore[attr-defined]
            given = value.get(member.serialization.get("name", member_name))
            if given is not None:
                result[member_name] = _from_json(member, given, f"{name}.{member_name}")
        return result
    if kind == "list":
        if not isinstance(value, list):
            raise _wrong(name, "a list")
        element = shape.member  # type: ignore[attr-defined]
        return [_from_json(element, item, f"{name}.{n + 1}.member") for n, item in enumerate(value)]
    if kind == "map":
        if not isinstance(value, dict):
            raise _wrong(name, "an object")
        element = shape.value  # type: ignore[attr-defined]
        return {key: _from_json(element, item, f"{name}.{key}") for key, item in value.items() if item is not None}
    if kind == "string":
        if not isinstance(value, str):
            raise _wrong(name, "a string")
        return value
    if kind == "boolean":
        if not isinstance(value, bool):
            raise _wrong(name, "true or false")
        return value
    if kind in _INTEGER_BITS:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(name, "a whole number")
        return _whole(value, kind, name)
    if kind in ("double", "float"):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise _wrong(name, "a number")
        return float(value)
    if kind == "timestamp":
        return _timestamp(shape, value, name, "unixTimestamp")
    if kind == "blob":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise _wrong(name, "base64 text") from None
    raise NotImplementedError(f"shape type {kind}")


def serialise(model: OperationModel, status: int, result: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of an operation's result. Absent and None members are omitted (section 1.4)."""
    shape = model.output_shape
    headers: dict[str, str] = {}
    if shape is None:
        return status, headers, b""
    for name in result.keys() - shape.members.keys():
        log.warning("%s: result member %s is not in the model and is dropped", model.name, name)
    payload_name = shape.serialization.get("payload")
    document: Any = {}
    for name, member in shape.members.items():
        value = result.get(name)
        if value is None:
            continue
        location = member.serialization.get("location")
        wire_name = member.serialization.get("name", name)
        if location == "header":
            headers[wire_name] = _to_text(member, value)
        elif location == "statusCode":
            status = int(value)
        elif name == payload_name:
            if member.type_name == "blob":
                headers["content-type"] = "application/json"
                return status, headers, bytes(value)
            document = _to_json(member, value)
        else:
            document[wire_name] = _to_json(member, value)
    return status, headers, json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _to_text(shape: Shape, value: Any) -> str:
    if shape.type_name == "boolean":
        return "true" if value else "false"
    if shape.type_name == "timestamp":
        return formatdate(value, usegmt=True)
    return str(value)


def _to_json(shape: Shape, value: Any) -> Any:
    kind = shape.type_name
    if kind == "structure":
        return _structure(shape, value)  # type: ignore[arg-type]
    if kind == "list":
        return [_to_json(shape.member, item) for item in value]  # type: ignore[attr-defined]
    if kind == "map":
        return {str(key): _to_json(shape.value, item) for key, item in value.items()}  # type: ignore[attr-defined]
    if kind == "blob":
        return base64.b64encode(value).decode()
    if kind == "timestamp":
        return round(value, 3)  # epoch seconds; milliseconds are all that the service gives
    return value


def _structure(shape: StructureShape, value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        member.serialization.get("name", name): _to_json(member, value[name])
        for name, member in shape.members.items()
        if value.get(name) is not None
    }
