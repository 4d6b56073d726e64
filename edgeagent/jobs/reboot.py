# SPDX-License-Identifier: Apache-2.0
"""Job operation `reboot`: restart the device, and prove it. Also what the managed template AWS-Reboot asks for.

SUCCEEDED with {bootId, resetCause} after the restart; FAILED if the device is back without having restarted.
"""

from edgeagent.compat import Any
from edgeagent.errors import JobFailed

RESUME = True


async def run(job: "Any") -> "dict[str, Any]":
    """{"operation": "reboot"}"""
    port = job.agent.port
    now = port.boot_id()
    if "before" not in job.data:
        # Durable before anything is told or done: whatever ends this boot, the next one knows what was asked for.
        job.checkpoint(before=now)
        await job.progress(step="restarting")
        job.reset("asked for by a job")
    if job.data["before"] == now:
        raise JobFailed("the device did not restart")
    return {"bootId": now, "resetCause": port.reset_cause()}
