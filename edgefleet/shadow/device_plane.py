# SPDX-License-Identifier: Apache-2.0
"""Shadows over MQTT: `$aws/things/{thing}/shadow/…` (aws-iot-protocol.md section 9.1).

Unlike those of jobs, answers are ordinary messages that every permitted subscriber gets.
"""

from __future__ import annotations

import re
import time
from typing import Any

from edgefleet.messages import Request
from edgefleet.shadow import requests, service
from edgefleet.shadow.requests import ShadowError
from edgefleet.store import Tx

_TOPIC = re.compile(r"\$aws/things/([^/]+)/shadow(?:/name/([^/]+))?/(get|update|delete)")


def handle(tx: Tx, request: Request, now: int | None = None) -> bool:
    """Answer a request on a shadow topic. Returns False for any other topic. now: epoch seconds."""
    found = _TOPIC.fullmatch(request.topic)
    if found is None:
        return False
    thing, name, verb = found.groups()
    now = int(time.time()) if now is None else now
    try:
        if verb == "update":
            service.update(tx, thing, name, request.payload, now)
        else:
            token = requests.token(request.payload)
            if verb == "get":
                tx.publish(f"{request.topic}/accepted", service.get(tx, thing, name, now, token))
            else:
                service.delete(tx, thing, name, now, token)
    except ShadowError as error:
        message: dict[str, Any] = {"code": error.code, "message": error.message, "timestamp": now}
        if error.token is not None:
            message["clientToken"] = error.token
        tx.publish(f"{request.topic}/rejected", message)
    return True
