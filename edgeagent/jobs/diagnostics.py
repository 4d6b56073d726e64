# SPDX-License-Identifier: Apache-2.0
"""Job operation `diagnostics`: upload a bundle of facts and recent log lines in parts of at most 4 KB.

The bundle is JSON lines, {"section": NAME, NAME: value}; its id is the job id. SUCCEEDED with {bundle, bytes, parts,
sha256}.
"""

import asyncio
import binascii
import hashlib
import json

from edgeagent import clock, log, topics
from edgeagent.compat import Any, const
from edgeagent.errors import JobFailed, TransportError

RESUME = True  # a bundle may be made again: the parts of the new one replace those of the old

_PART = const(4096)
_TRIES = const(6)


def _parts(sections: "list[Any]") -> "Any":
    """The bundle in pieces; no more than one is in memory."""
    held = b""
    for section in sections:
        held += json.dumps({"section": section[0], section[0]: section[1]}).encode() + b"\n"
        while len(held) > _PART:
            yield held[:_PART]
            held = held[_PART:]
    yield held


async def run(job: "Any") -> "dict[str, Any]":
    """{"operation": "diagnostics"}"""
    agent = job.agent
    port = agent.port
    # Two passes over a snapshot, since the topic of the first part already tells how many there are.
    sections: "list[Any]" = [
        ("time", clock.now()),
        ("facts", agent.facts()),
        ("memory", port.memory()),
        ("boot", {"bootId": port.boot_id(), "resetCause": port.reset_cause()}),
        ("counters", dict(agent.counters)),
        ("attributes", agent.attributes.full()),
    ]
    for line in log.recent:
        sections.append(("log", line))
    size = count = 0
    digest = hashlib.sha256()
    for part in _parts(sections):
        size += len(part)
        count += 1
        digest.update(part)
    for number, part in enumerate(_parts(sections)):
        topic = topics.upload(agent.thing_name, job.id, number, count)
        tries = _TRIES
        while tries:
            try:
                await asyncio.wait_for(agent.connected.wait(), 60)
                await agent.client.publish(topic, part)
                break
            except (asyncio.TimeoutError, TransportError) as error:
                tries -= 1
                if not tries:
                    raise JobFailed("part %d of %d: %s" % (number, count, error)) from None
                await asyncio.sleep(1)
    return {"bundle": job.id, "bytes": size, "parts": count, "sha256": binascii.hexlify(digest.digest()).decode()}
