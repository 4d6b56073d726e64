# SPDX-License-Identifier: Apache-2.0
"""Requests to the reserved topics of AWS IoT: publish on T, the answer comes on T/accepted or T/rejected.

The service answers the requesting connection directly, and again (or only) to subscribers, depending on the service
(aws-iot-protocol.md, rule 1); the first answer counts, a second finds nobody waiting. Answers are told apart by
`clientToken`; services without one (Fleet Provisioning, rule 18) allow one request at a time on a topic.
"""

import binascii
import json
import os

from edgeagent import topics
from edgeagent.errors import ProtocolError, Refused
from edgeagent.limits import LIMITS

try:
    from typing import Any

    from edgeagent.mqtt.client import Client
except ImportError:
    pass


class Requests:
    """Requests over one client. `client` is public: features register their own handlers on it."""

    def __init__(self, client: "Client") -> None:
        self.client = client
        self._waiting: "list[Any]" = []  # (topic, token or None, waiter)
        # Tokens must differ between restarts too, or a late answer to an earlier life could be taken for ours.
        self._prefix = binascii.hexlify(os.urandom(4)).decode()
        self._count = 0
        client.oversized.append(self._too_large)

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
        mark = None
        if token:
            self._count += 1
            mark = "%s-%d" % (self._prefix, self._count)
            body = dict(body)
            body["clientToken"] = mark
        elif [entry for entry in self._waiting if entry[0] == topic]:
            raise RuntimeError("a request on %s is already waiting" % topic)
        client = self.client
        expected = client.expect()
        entry = (topic, mark, expected[1])
        self._waiting.append(entry)
        accepted = client.on(topic + topics.ACCEPTED, self._reply)
        rejected = client.on(topic + topics.REJECTED, self._reply)
        try:
            await client.publish(topic, json.dumps(body))
            return await expected[1].wait(timeout, topic)  # type: ignore[no-any-return]
        finally:
            client.off(accepted)
            client.off(rejected)
            self._waiting.remove(entry)
            client.forget(expected)

    def _reply(self, topic: str, payload: bytes) -> None:
        request = topic[: topic.rfind("/")]
        waiting = [entry for entry in self._waiting if entry[0] == request]
        if not waiting:
            return
        try:
            body = json.loads(payload)
        except (ValueError, UnicodeError):
            body = None
        for _, mark, waiter in waiting:
            if not isinstance(body, dict):
                waiter.done(ProtocolError("answer on %s is not a JSON object" % topic))
            elif mark is None or body.get("clientToken") == mark:
                if topic.endswith(topics.ACCEPTED):
                    waiter.done(body)
                else:
                    # Jobs and shadow say `code` and `message`, Fleet Provisioning `errorCode` and `errorMessage`.
                    code = body.get("errorCode") or body.get("code") or "Unknown"
                    text = body.get("errorMessage") or body.get("message") or ""
                    waiter.done(Refused(str(code), str(text), body))

    def _too_large(self, topic: str, size: int) -> None:
        for request, _, waiter in self._waiting:
            if topic == request + topics.ACCEPTED:
                # Whose answer it was cannot be read any more; a wrong guess costs one retry.
                waiter.done(Refused("ReplyTooLarge", "answer on %s has %d bytes" % (topic, size)))
