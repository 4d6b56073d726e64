# SPDX-License-Identifier: Apache-2.0
"""No trial lasts for ever: ends one that nobody confirmed in time, with or without a link.

The agent runs `watch` as a task of its own from its start. The job handler that confirms needs the service; this
needs nothing, so a version that boots and never reaches the network goes back too, and so does one whose job was
cancelled meanwhile.
"""

import asyncio

from edgeagent import clock
from edgeagent.compat import Any
from edgeagent.ota import kinds, trial


async def watch(agent: "Any") -> None:
    """Return once there is no trial; at its deadline roll back and restart the device.

    agent: has `port` (slots_dir, reset()) and `healthy()`. The deadline counts from this call, which is the start of
    the agent: a trial boot that takes longer to get here is the watchdog's.
    """
    start = clock.ticks()
    while True:
        kind, status = kinds.find(agent.port)
        if not kind or not status["boots"]:
            return
        if clock.elapsed_ms(start) >= status["deadline_s"] * 1000:
            break
        await asyncio.sleep(1)
    link = "connected" if agent.client and agent.client.connected else "no connection"
    reason = "not confirmed within %d s, %s: %s" % (status["deadline_s"], link, (await agent.healthy())[1])
    # It may have been confirmed while the health checks ran; then there is nothing to undo.
    if trial.failed(kinds.folder(agent.port, kind), reason):
        agent.port.reset()
