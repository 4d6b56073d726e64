# SPDX-License-Identifier: Apache-2.0
"""One shadow of this thing, classic or named. Source: aws-iot-protocol.md section 9."""

import json

from edgeagent import log, topics
from edgeagent.errors import Refused
from edgeagent.limits import LIMITS

try:
    from typing import Any

    from edgeagent.mqtt.rpc import Requests
except ImportError:
    pass


class Shadow:
    """Reads and reports. Call `subscribe` after every connect that did not resume a session."""

    def __init__(self, requests: "Requests", thing: str, name: "str | None" = None) -> None:
        self._requests = requests
        self._thing = thing
        self._name = name
        self._handler: "Any" = None
        self._version = 0

    def _topic(self, operation: str) -> str:
        return topics.shadow(self._thing, operation, self._name)

    async def subscribe(self) -> None:
        """Subscribe to the answers, and to deltas if there is a handler for them."""
        names = ["get/accepted", "get/rejected", "update/accepted", "update/rejected"]
        if self._handler:
            names.append("update/delta")
        await self._requests.subscribe([self._topic(name) for name in names])

    async def get(self) -> "dict[str, Any] | None":
        """The whole document {"state", "version", …}, or None if there is none yet. Raises Refused, TransportError."""
        try:
            return await self._requests.call(self._topic("get"), {})
        except Refused as error:
            if error.code == "404":
                return None
            raise

    async def update_reported(self, reported: "dict[str, Any] | None") -> "dict[str, Any]":
        """Merge into the reported section (None values delete; None for all deletes the section); the answer.

        Raises Refused("413") without asking for a document over 8 KB, Refused, TransportError.
        """
        state = {"reported": reported}
        size = len(json.dumps(state).encode())
        if size > LIMITS.SHADOW_BYTES:
            raise Refused("413", "reported state of %d bytes, limit %d" % (size, LIMITS.SHADOW_BYTES))
        return await self._requests.call(self._topic("update"), {"state": state})

    def on_delta(self, handler: "Any") -> None:
        """Call `handler(state, version)` for each delta: what is desired and not reported. Set it before `subscribe`.

        It runs inside the MQTT reader (see mqtt/client.py). Deltas older than one already seen are ignored.
        """
        if self._handler is None:
            self._requests.client.on(self._topic("update/delta"), self._delta)
        self._handler = handler

    def _delta(self, topic: str, payload: bytes) -> "Any":
        try:
            body = json.loads(payload)
            state = body["state"]
            version = body["version"]
        except (ValueError, KeyError, TypeError):
            state = version = None
        if not isinstance(state, dict) or not isinstance(version, int):
            log.warning("shadow", "malformed delta on %s", topic)
            return None
        if version <= self._version:
            return None
        self._version = version
        return self._handler(state, version)
