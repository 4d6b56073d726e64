# SPDX-License-Identifier: Apache-2.0
"""Not now: an update waits for its window, for the battery and for the application, before it is downloaded and again
before the device restarts into it.

    "window": {…}        see window.py
    "battery": 30        percent, at least
    "wait": 86400        seconds in all, at most 604800; then the job fails with "gate"; sooner if the artifact expires
in the job document; `update_window` of agent.json is a window for all of them. What the application says:
`@agent.may_update`, `@agent.battery`.
"""

import asyncio

from edgeagent import clock
from edgeagent.compat import Any, const
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.ota import kinds

_POLL_S = 5
_KEEP_S = const(600)  # a reset forgets at most so much of the wait


def idle(port: "Any") -> None:
    """Raises UpdateError "busy", naming the version, if anything is on trial."""
    busy = kinds.find(port)[1]
    if busy:
        raise UpdateError("busy", busy["version"])


async def wait(job: "Any", stage: str, version: str, expires: "int | None" = None) -> None:
    """Return when the update may go on. stage: "download" or "restart", for the application. expires: of the artifact.

    Raises JobRejected for a bad document, UpdateError "gate" with the reason when the time is over, "expired"; a job
    that is cancelled ends as everywhere.
    """
    document = job.document
    battery = document.get("battery", 0)
    limit = document.get("wait", 86400)
    if type(battery) is not int or not 0 <= battery <= 100 or type(limit) is not int or not 0 <= limit <= 604800:
        raise JobRejected("battery, wait: percent, seconds")
    told = ""
    past = job.data.get("waited", 0)
    start = clock.ticks()
    while True:
        now = clock.now()
        if expires and now > max(expires, clock.SET):
            raise UpdateError("expired", str(expires))
        reason = ""
        for window in (document.get("window"), job.agent.config.update_window):
            if window is not None and not reason:
                from edgeagent.ota.window import closed

                reason = closed(window, now)
        if not reason:
            reason = await _ask(job.agent, stage, battery)
        waited = clock.elapsed_ms(start) // 1000
        if not reason:
            return
        if past + waited >= limit:
            raise UpdateError("gate", reason)
        if waited >= _KEEP_S:
            past += waited
            start = clock.ticks()  # which go round after some days
            job.checkpoint(waited=past)
            told = ""  # restarts the step timer, too
        if reason != told and await job.progress(None, step="waiting", version=version, reason=reason):
            told = reason
        await asyncio.sleep(_POLL_S)


async def _ask(agent: "Any", stage: str, battery: int) -> str:
    """Why the application, or the battery, says no; "" if it does not."""
    hooks = agent.hooks
    if battery:
        have, why = await agent.ask(hooks.get("battery", lambda: (agent.facts().get("battery"), "unknown")))
        if isinstance(have, bool) or not isinstance(have, (int, float)):
            return "battery: " + str(why)
        if have < battery:
            return "battery: %d %%, must be %d" % (have, battery)
    if "may_update" in hooks:
        may, why = await agent.ask(hooks["may_update"], stage)
        if may is False:
            return "application: " + str(why)
    return ""
