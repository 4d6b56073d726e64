# SPDX-License-Identifier: Apache-2.0
"""Streams over MQTT: `$aws/things/{thing}/streams/{stream}/…` (aws-iot-protocol.md sections 10.1, 10.2).

A request is answered in its own format, JSON or CBOR.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from edgefleet import payload
from edgefleet.artifacts.objects import Objects
from edgefleet.messages import Request
from edgefleet.store import Tx
from edgefleet.streams import blocks, cbor, records
from edgefleet.streams.blocks import StreamError

MAX_DEPTH = 8
_TOPIC = re.compile(r"(\$aws/things/[^/]+/streams/([^/]+))/(describe|get)/(json|cbor)")


class StreamsPlane:
    """objects: where the files are. Every answer goes to the requesting connection only."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def handle(self, tx: Tx, request: Request) -> bool:
        """Answer a request on a stream topic. Returns False for any other topic."""
        found = _TOPIC.fullmatch(request.topic)
        if found is None:
            return False
        base, stream_id, verb, form = found.groups()
        head: dict[str, Any] = {}
        try:
            body = _FORMS[form](request.payload)
            token = blocks.token(body)
            if token is not None:
                head["c"] = token
            stream = records.stream(tx, stream_id)
            if verb == "describe":
                _reply(tx, f"{base}/description/{form}", {**head, **self._describe(tx, stream_id, stream)})
            else:
                for block in self._get(tx, stream_id, stream, body):
                    _reply(tx, f"{base}/data/{form}", {**head, **block})
        except StreamError as error:
            _reply(tx, f"{base}/rejected/{form}", {"o": error.code, "m": error.message, **head})
        return True

    @staticmethod
    def _describe(tx: Tx, stream_id: str, stream: Any) -> dict[str, Any]:
        if stream is None:
            raise _unknown(stream_id)
        answer: dict[str, Any] = {"s": stream["version"]}
        if stream["description"] is not None:
            answer["d"] = stream["description"]
        answer["r"] = [{"f": file.file_id, "z": file.size} for file in records.files(tx, stream_id)]
        return answer

    def _get(self, tx: Tx, stream_id: str, stream: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The messages of all blocks; complete before the first is queued, so that an error stands alone."""
        request = blocks.get_request(body)
        if stream is None:
            raise _unknown(stream_id)
        if request.version is not None and request.version != stream["version"]:
            raise StreamError("VersionMismatch", f"stream {stream_id} has version {stream['version']}")
        file = next((one for one in records.files(tx, stream_id) if one.file_id == request.file), None)
        if file is None:
            raise StreamError("ResourceNotFound", f"stream {stream_id} has no file {request.file}")
        numbers = blocks.select(request, file.size)
        data = records.read(self._objects, file, request.block, numbers)
        return [
            {"f": request.file, "l": len(piece), "i": number, "p": piece}
            for number, piece in zip(numbers, data, strict=True)
        ]


def _reply(tx: Tx, topic: str, body: dict[str, Any]) -> None:
    """In the format that the topic names; a block is a byte string in CBOR and base64 in JSON."""
    if topic.endswith("/cbor"):
        tx.reply(topic, cbor.encode(body))
    else:
        tx.reply(topic, {name: _base64(value) if isinstance(value, bytes) else value for name, value in body.items()})


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unknown(stream_id: str) -> StreamError:
    return StreamError("ResourceNotFound", f"stream {stream_id} does not exist")


def _object(data: bytes) -> dict[str, Any]:
    """The request; an empty payload is an empty object."""
    if not data:
        return {}
    try:
        body = payload.parse(data, MAX_DEPTH)
    except payload.PayloadError as error:
        raise StreamError("InvalidJson", str(error)) from None
    if not isinstance(body, dict):
        raise StreamError("InvalidJson", "the payload is not a JSON object")
    return body


def _map(data: bytes) -> dict[str, Any]:
    """As `_object`, of CBOR."""
    try:
        return cbor.decode(data) if data else {}
    except cbor.CborError as error:
        raise StreamError("InvalidCbor", str(error)) from None


_FORMS = {"json": _object, "cbor": _map}
