# SPDX-License-Identifier: Apache-2.0
"""Run by MicroPython (and CPython): many jobs through one runner, over the Jobs service of tests/portable.

Arguments: number of jobs, jobs between two samples. Prints "SAMPLE jobs bytes" with the heap that is in use.
"""

import asyncio
import gc
import sys

from edgeagent import log
from edgeagent.errors import JobFailed, JobRejected
from tests.portable.job_service import Device, Service, live, wipe


async def work(job):
    job.checkpoint(step=1)
    await job.progress(50, step="half")
    if job.document["n"] % 5 == 1:
        raise JobFailed("no oil", {"level": 3})
    if job.document["n"] % 5 == 2:
        raise JobRejected("not for me")
    if job.document["n"] % 5 == 3:
        raise ValueError("bad sensor")
    return {"offset": job.document["n"]}


async def soak(device, jobs, every):
    service = device.service
    for done in range(jobs + 1):
        if done % every == 0:
            gc.collect()
            gc.collect()
            print("SAMPLE", done, gc.mem_alloc() if hasattr(gc, "mem_alloc") else 0)
        service.add("j" + str(done), {"operation": "work" if done % 7 else "dance", "n": done})
        while device.runner._record or not service.over():  # noqa: ASYNC110
            await asyncio.sleep(0)
        if not done % 50:  # a reconnect
            device.connected.clear()
            await asyncio.sleep(0.001)
            await device.connect()
        # The simulated service remembers everything; the agent must not.
        service.executions.clear()
        service.history.clear()
        device.calls.clear()


def main(jobs, every):
    wipe()
    log.configure(40, lambda line: None)
    device = Device(Service())
    device.handlers.register("work", work)
    live(device, lambda device: soak(device, jobs, every))
    wipe()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
