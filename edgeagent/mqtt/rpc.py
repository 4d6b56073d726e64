# SPDX-License-Identifier: Apache-2.0
"""Requests to the reserved topics of AWS IoT: publish on T, the answer comes on T/accepted or T/rejected.

The service answers the requesting connection directly, and again (or only) to subscribers, depending on the service
(aws-iot-protocol.md, rule 1); the first answer counts, a second finds nobody waiting. Answers are told apart by
`clientToken`; services without one (Fleet Provisioning, rule 18) allow one request at a time on a topic.
Requests go out with QoS 0: the answer is the acknowledgement, and its absence is noticed.
"""

import json
import os

from edgeagent import topics
from edgeagent.compat import Any
from edgeagent.errors import ProtocolError, Refused
from edgeagent.limits import LIMITS
from edgeagent.mqtt import packet


class Requests:
    """Requests over one client. `client` is public: features register their own handlers on it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._topics: "dict[str, str]" = {}  # of each open request: clientToken (or topic, if it has none) -> topic
        # Tokens must differ between restarts too, or a late answer to an earlier life could be taken for ours.
        self._count = int.from_bytes(os.urandom(6), "big")
        client.on("$aws/#", self._reply)
        client.oversized.append(self._reply)

    async def subscribe(self, filters: "list[str]") -> None:
        """Subscribe (QoS 1) to reply filters, e.g. `topics.jobs(thing, "+/update/+")`."""
        await self.client.subscribe([(name, 1) for name in filters])

    async def call(
        self,
        topic: str,
        body: "dict[str, Any]",
        timeout: int = LIMITS.REQUEST_S,  # noqa: ASYNC109 - asyncio.timeout does not exist on MicroPython
        token: bool = True,
    ) -> "dict[str, Any]":
        """Send a request and return the accepted answer.

        body: what is sent as JSON; `clientToken` is added unless token is False. timeout: seconds for the answer.
        Raises Refused(code, message, answer) on rejected; Refused("ReplyTooLarge") if the answer is over the receive
        cap; TransportError if there is none or the link ends; ProtocolError if it is not a JSON object.
        """
        key = topic
        if token:
            self._count += 1
            key = "%x" % self._count
            body = dict(body)
            body["clientToken"] = key
        elif key in self._topics:
            raise RuntimeError(key)  # it could not be told whose answer comes
        data = json.dumps(body).encode()
        self._topics[key] = topic
        try:
            head = packet.publish(topic, len(data), 0, False)
            return await self.client.exchange(key, head, data, timeout)  # type: ignore[no-any-return]
        finally:
            self._topics.pop(key)

    def _reply(self, topic: str, payload: Any) -> None:
        """An answer: its bytes, or the number of them if they were over the receive cap."""
        at = topic.rfind("/")
        end = topic[at:]
        topic = topic[:at]
        keys = [key for key in self._topics if self._topics[key] == topic]
        if not keys or end not in (topics.ACCEPTED, topics.REJECTED):
            return
        answer: Any
        if isinstance(payload, int):
            # Whose answer it was cannot be read any more; a wrong guess costs one retry.
            answer = Refused("ReplyTooLarge", "%d bytes" % payload)
        else:
            try:
                answer = json.loads(payload)
                keys = [key for key in keys if key == answer.get("clientToken", topic)]
                if end == topics.REJECTED:
                    # Jobs and shadow say `code` and `message`, Fleet Provisioning `errorCode` and `errorMessage`.
                    code = answer.get("errorCode") or answer.get("code")
                    answer = Refused(str(code), answer.get("errorMessage") or answer.get("message"), answer)
            except (ValueError, AttributeError):
                answer = ProtocolError("answer is no JSON object")
        for key in keys:
            self.client.done(key, answer)
