# SPDX-License-Identifier: Apache-2.0
"""Job operation `diagnostics`: upload a bundle of facts and recent log lines in parts of at most 4 KB.

The bundle is JSON lines, {"section": NAME, ...}; its id is the job id. SUCCEEDED with {bundle, bytes, parts, sha256}.
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


def sections(agent: "Any") -> "list[Any]":
    """What the bundle says: objects with a `section`, and the log lines as plain text."""
    found: "list[Any]" = [
        {"section": "facts", "thing": agent.thing_name, "time": clock.now(), "facts": agent.facts()},
        {"section": "memory", "memory": agent.port.memory()},
        {"section": "boot", "bootId": agent.port.boot_id(), "resetCause": agent.port.reset_cause()},
        {"section": "counters", "counters": dict(agent.counters)},
        {"section": "attributes", "attributes": agent.attributes.full()},
    ]
    return found + log.recent()


def _line(entry: "Any") -> bytes:
    if isinstance(entry, str):
        entry = {"section": "log", "line": entry}
    return json.dumps(entry).encode() + b"\n"


async def run(job: "Any") -> "dict[str, Any]":
    """{"operation": "diagnostics"}"""
    agent = job.agent
    # Two passes over a snapshot, since the topic of the first part already tells how many there are.
    entries = sections(agent)
    size = 0
    digest = hashlib.sha256()
    for entry in entries:
        line = _line(entry)
        size += len(line)
        digest.update(line)
    parts = (size + _PART - 1) // _PART
    part = 0
    held = bytearray()
    for entry in entries:
        held += _line(entry)
        while len(held) >= _PART:
            await _send(agent, job.id, part, parts, bytes(held[:_PART]))
            part += 1
            held = held[_PART:]
    if held:
        await _send(agent, job.id, part, parts, bytes(held))
    return {
        "bundle": job.id,
        "bytes": size,
        "parts": parts,
        "sha256": binascii.hexlify(digest.digest()).decode(),
    }


async def _send(agent: "Any", bundle: str, part: int, parts: int, data: bytes) -> None:
    topic = topics.upload(agent.thing_name, bundle, part, parts)
    for _ in range(_TRIES):
        try:
            await asyncio.wait_for(agent.connected.wait(), 60)
            await agent.client.publish(topic, data, 1)
            return
        except (asyncio.TimeoutError, TransportError) as error:
            problem = error
            await asyncio.sleep(1)
    raise JobFailed("part %d of %d not accepted: %s" % (part, parts, problem))
