# SPDX-License-Identifier: Apache-2.0
"""No trial lasts for ever: ends one that nobody confirmed in time, with or without a link.

The agent runs `watch` as a task of its own from its start. The job handler that confirms needs the service; this
needs nothing, so a version that boots and never reaches the network goes back too, and so does one whose job was
cancelled meanwhile.
"""

import asyncio

from edgeagent import clock
from edgeagent.compat import Any, const, exists
from edgeagent.ota import kinds, trial

_SETTLED_S = const(60)


async def watch(agent: "Any") -> None:
    """Return once there is no trial and no row of crashes; at a trial's deadline roll back and restart the device.

    agent: has `port` (slots_dir, reset()) and `healthy()`. The deadline counts from this call, which is the start of
    the agent: a trial boot that takes longer to get here is the watchdog's.
    """
    start = clock.ticks()
    root = kinds.folder(agent.port, "agent")
    document = trial.status(root)
    fails = document.get("fails")
    if fails in (1, 2, 4, 5):  # from 3 on those of the active agent, which does not run
        document["fails"] = 3 * (fails > 3)
        try:
            trial.save(root, document)
        except OSError:
            pass  # one more failure counts
    kind, status = kinds.find(agent.port)
    root = kinds.folder(agent.port, kind)
    while kind and status["state"] == "trial" and status["boots"]:
        if clock.elapsed_ms(start) >= status["deadline_s"] * 1000:
            break
        await asyncio.sleep(1)
        status = trial.status(root)
    else:
        return await _settle(agent)
    link = "connected" if agent.client and agent.client.connected else "no connection"
    reason = "not confirmed within %d s, %s: " % (status["deadline_s"], link)
    try:
        reason += (await agent.healthy())[1]
    finally:  # whatever the application's checks raise
        # It may have been confirmed while they ran; then there is nothing to undo.
        if trial.failed(root, reason):
            agent.port.reset()


async def _settle(agent: "Any") -> None:
    """A minute of connection ends a row of crashes: whoever can be reached can be updated."""
    root = agent.port.slots_dir
    if exists(root + "/crash.json"):
        from edgeagent.ota import safety

        left = _SETTLED_S * bool(safety.last_crash(root)["count"])
        while left:
            await asyncio.sleep(1)
            left = left - 1 if agent.connected.is_set() else _SETTLED_S
            if not left:
                safety.settled(root)
