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
from edgeagent.compat import Any, const
from edgeagent.errors import ProtocolError, Refused

_SMALL = const(9216)  # bytes of an answer that a heap has room for unless it is in pieces: a job document and 1 KB


class Requests:
    """Requests over one client. `client` is public: features register their own handlers on it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.subscribe = client.subscribe  # to reply filters, e.g. [topics.jobs(thing, "+/update/+")]
        self._topics: "dict[str, str]" = {}  # of each open request: clientToken (or topic, if it has none) -> topic
        # Tokens must differ between restarts too, or a late answer to an earlier life could be taken for ours.
        self._count = int.from_bytes(os.urandom(6), "big")
        client.on("$aws/#", self._reply)
        client.oversized.append(self._reply)

    async def call(
        self,
        topic: str,
        body: "dict[str, Any]",
        timeout: "float | None" = None,  # noqa: ASYNC109 - asyncio.timeout does not exist on MicroPython
        token: bool = True,
    ) -> "dict[str, Any]":
        """Send a request and return the accepted answer.

        body: what is sent as JSON; `clientToken` is added unless token is False. timeout: seconds for the answer,
        default LIMITS.REQUEST_S.

        Raises Refused(code, message, answer) on rejected; Refused("ReplyTooLarge") if the answer is over the receive
        cap; Refused("MemoryError") if there is no memory for a small one; TransportError if there is none or the link
        ends; ProtocolError if it is not a JSON object.
        """
        key = topic
        if token:
            self._count += 1
            key = "%x" % self._count
            body = dict(body)
            body["clientToken"] = key
        data = json.dumps(body).encode()
        self._topics[key] = topic
        try:
            return await self.client.request(topic, data, key, timeout)  # type: ignore[no-any-return]
        finally:
            self._topics.pop(key)

    def _reply(self, topic: str, payload: Any) -> None:
        """An answer: its bytes, or the number of them if they were over the receive cap."""
        for key in list(self._topics):
            asked = self._topics[key]
            if topic not in (asked + topics.ACCEPTED, asked + topics.REJECTED):
                continue
            answer: Any
            size = payload
            try:
                size = len(payload)
                answer = json.loads(payload)
                if answer.get("clientToken", asked) != key:
                    continue
                if topic.endswith(topics.REJECTED):
                    # Jobs and shadow say `code` and `message`, Fleet Provisioning `errorCode` and `errorMessage`.
                    code = answer.get("errorCode") or answer.get("code")
                    answer = Refused(str(code), answer.get("errorMessage") or answer.get("message"), answer)
            except (ValueError, AttributeError, RuntimeError):  # RuntimeError, not on boards: nested too deeply
                answer = ProtocolError("answer is no JSON object")
            except (MemoryError, TypeError):
                # TypeError: only its size is known. Whose answer it was is not; a wrong guess costs one retry.
                answer = Refused("MemoryError" if size <= _SMALL else "ReplyTooLarge", str(size))
            self.client.done(key, answer)
