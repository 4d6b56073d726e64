# SPDX-License-Identifier: Apache-2.0
"""Jobs over MQTT: `$aws/things/{thing}/jobs/…` (aws-iot-protocol.md sections 3.1, 3.2, 3.10)."""

from __future__ import annotations

import re
from typing import Any

from edgeagent import topics
from edgefleet import payload
from edgefleet.jobs import device, requests
from edgefleet.jobs.documents import Presign
from edgefleet.jobs.records import Context
from edgefleet.jobs.rules import JobError
from edgefleet.messages import Request
from edgefleet.store import Tx

MAX_DEPTH = 16  # of a request; the deepest legal one has two levels
_TOPIC = re.compile(r"\$aws/things/([^/]+)/jobs/(.*)", re.DOTALL)
_VERBS = re.compile(r"(?P<plain>get|start-next)|(?P<job>\$next|[a-zA-Z0-9_-]{1,64})/(?P<verb>get|update)")


def handle(tx: Tx, request: Request, context: Context | None = None, presign: Presign | None = None) -> bool:
    """Answer a request on a jobs topic. Returns False for any other topic.

    context: time and presigner of the operation; by default the current time and `presign`.
    """
    found = _TOPIC.fullmatch(request.topic)
    if found is None:
        return False
    context = context or Context.current(presign)
    thing, rest = found[1], found[2]
    token: str | None = None

    def answer(suffix: str, members: dict[str, Any]) -> None:
        head: dict[str, Any] = {} if token is None else {"clientToken": token}
        tx.reply(request.topic + suffix, {**head, "timestamp": context.now, **members})

    def accept(members: dict[str, Any]) -> None:
        answer(topics.ACCEPTED, members)

    try:
        body = _body(request.payload)
        token = requests.client_token(body)
        verbs = _VERBS.fullmatch(rest)
        if verbs is None or (verbs["job"] == device.NEXT and verbs["verb"] == "update"):
            raise JobError("InvalidTopic", f"'{request.topic}' is not a topic of a jobs operation")
        if verbs["plain"] == "get":
            device.get_pending(tx, context, thing, accept)
        elif verbs["plain"] == "start-next":
            device.start_next(tx, context, thing, body, accept)
        elif verbs["verb"] == "get":
            device.describe(tx, context, thing, verbs["job"], body, accept)
        else:
            device.update(tx, context, thing, verbs["job"], body, accept)
    except JobError as error:
        state = {} if error.state is None else {"executionState": error.state}
        answer(topics.REJECTED, {**state, "code": error.code, "message": error.message})
    return True


def _body(data: bytes) -> dict[str, Any]:
    """The request object; an empty payload is an empty object (section 0, rule 8)."""
    if not data:
        return {}
    try:
        body = payload.parse(data, MAX_DEPTH)
    except payload.PayloadError as error:
        raise JobError("InvalidJson", str(error)) from None
    if not isinstance(body, dict):
        raise JobError("InvalidJson", "the payload is not a JSON object")
    return body
