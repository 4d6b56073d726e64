# SPDX-License-Identifier: Apache-2.0
"""A job of your own that takes long: it tells how far it is, and goes on after a reset where it was.

    {"operation": "calibrate", "positions": 20, "condition": "type == 'PUMP'"}

Runs on boards and hosts.
"""

import asyncio

from edgeagent import Agent, JobFailed, JobRejected

VERSION = "1.0.0"
agent = Agent.from_file(version=VERSION)


async def measure(position):
    """Your hardware here. This one is a straight line with an offset."""
    await asyncio.sleep(0.1)
    return 3 * position + 12


@agent.job("calibrate", resume=True)
async def calibrate(job):
    positions = job.document.get("positions", 10)
    if not isinstance(positions, int) or not 2 <= positions <= 100:
        raise JobRejected("positions: must be a whole number from 2 to 100")
    done = job.data.get("done", 0)  # of an earlier life of this device; 0 at the start
    total = job.data.get("total", 0)
    while done < positions:
        total += await measure(done) - 3 * done
        done += 1
        job.checkpoint(done=done, total=total)  # on flash when this returns
        if done % 5 == 0:
            await job.progress(100 * done // positions, step=f"position {done}")
    offset = total / positions
    if abs(offset) > 100:
        raise JobFailed(f"offset {offset:.1f} is beyond what can be trimmed")
    return {"offset": offset, "resumed": job.resumed}


def main():
    agent.run()
