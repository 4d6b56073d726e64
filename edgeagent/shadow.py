# SPDX-License-Identifier: Apache-2.0
"""One shadow of this thing, classic or named. Source: aws-iot-protocol.md section 9."""

import json

from edgeagent import log, topics
from edgeagent.compat import Any
from edgeagent.errors import Refused


class Shadow:
    """Reads and reports. Call `subscribe` after every connect that did not resume a session."""

    def __init__(self, requests: Any, thing: str, name: "str | None" = None) -> None:
        self.requests = requests
        self._topic = topics.shadow(thing, "", name)
        self._handler: Any = None
        self._version = 0

    async def subscribe(self) -> None:
        """Subscribe to the answers, and to deltas if there is a handler for them."""
        topic = self._topic
        names = [topic + "get/accepted", topic + "get/rejected", topic + "update/accepted", topic + "update/rejected"]
        if self._handler:
            names.append(topic + "update/delta")
        await self.requests.subscribe(names)

    async def get(self) -> "dict[str, Any] | None":
        """The whole document {"state", "version", …}, or None if there is none yet. Raises Refused, TransportError."""
        try:
            document = await self.requests.call(self._topic + "get", {})
            self._version = document["version"]  # a shadow that was deleted may count from 1 again (9.3)
            return document  # type: ignore[no-any-return]
        except Refused as error:
            if error.code == "404":
                self._version = 0
                return None
            raise

    def update_reported(self, reported: "dict[str, Any] | None", version: "int | None" = None) -> Any:
        """Merge into the reported section (None values delete; None for all deletes the section); awaits the answer.

        version: only if the shadow still has it. Raises Refused ("409" if it has another one, "413" for a document over
        8 KB), TransportError.
        """
        body: "dict[str, Any]" = {"state": {"reported": reported}}
        if version is not None:
            body["version"] = version
        return self.requests.call(self._topic + "update", body)

    def on_delta(self, handler: Any) -> None:
        """Call `handler(state, version)` for each delta: what is desired and not reported. Set it before `subscribe`.

        It runs inside the MQTT reader (see mqtt/client.py). Deltas older than one already seen are ignored.
        """
        if not self._handler:
            self.requests.client.on(self._topic + "update/delta", self._delta)
        self._handler = handler

    def _delta(self, topic: str, payload: Any) -> Any:
        try:
            body = json.loads(payload)
            version = body["version"]
            state = body["state"]
            newer = version > self._version and isinstance(state, dict)
        except (ValueError, KeyError, TypeError):
            log.warning("shadow", "malformed delta dropped")  # and acknowledged: it would only come again
            return None
        if newer:
            self._version = version
            return self._handler(state, version)
