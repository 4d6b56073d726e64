# SPDX-License-Identifier: Apache-2.0
"""Job operation `reboot`: restart the device, and prove it. Also what the managed template AWS-Reboot asks for.

SUCCEEDED with {bootId, resetCause} after the restart; FAILED if the device is back without having restarted.
"""

import asyncio

from edgeagent.compat import const
from edgeagent.errors import JobFailed

try:
    from typing import Any
except ImportError:
    pass

RESUME = True
_TELL_S = const(20)


async def run(job: "Any") -> "dict[str, Any]":
    """{"operation": "reboot"}"""
    port = job.agent.port
    now = port.boot_id()
    before = job.data.get("before")
    if before is None:
        # Durable before anything is told or done: whatever ends this boot, the next one knows what was asked for.
        job.checkpoint(before=now)
        try:
            await asyncio.wait_for(job.progress(step="restarting"), _TELL_S)
        except asyncio.TimeoutError:
            pass  # it may be the link that the restart is to cure
        job.reset("asked for by a job")
    if before == now:
        raise JobFailed("the device did not restart")
    return {"bootId": now, "resetCause": port.reset_cause()}
