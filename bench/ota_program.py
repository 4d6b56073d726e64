# SPDX-License-Identifier: Apache-2.0
"""Runs on MicroPython: one figure of bench/ota.py, on the real littlefs. `ota_program.py flash|cuts|heap-payload|
heap-files`; prints JSON.
"""

import asyncio
import gc
import json
import os
import sys

import vfs

from edgeagent import compat, log
from edgeagent.errors import UpdateError
from edgeagent.jobs import ota
from edgeagent.ota import launch, trial
from tests.portable.ota_support import Artifact, trust
from tests.portable.ota_world import Agent, Job, Reset

BLOCK = 4096
CUTS = 100
SEED = 20261123
SIZE = 1500000


class Flash:
    """NOR flash in memory; dies after `fuse` operations."""

    def __init__(self, blocks):
        self.data = bytearray(b"\xff" * (blocks * BLOCK))
        self.blocks = blocks
        self.programmed = self.erased = self.operations = 0
        self.fuse = -1

    def _dead(self):
        if self.fuse == 0:
            return True
        self.fuse -= self.fuse > 0
        self.operations += 1
        return False

    def readblocks(self, block, buffer, offset=0):
        if self.fuse == 0:
            return -5
        at = block * BLOCK + offset
        buffer[:] = memoryview(self.data)[at : at + len(buffer)]
        return 0

    def writeblocks(self, block, buffer, offset=0):
        if self._dead():
            return -5
        at = block * BLOCK + offset
        self.data[at : at + len(buffer)] = buffer  # littlefs programs erased bytes only
        self.programmed += len(buffer)
        return 0

    def ioctl(self, operation, argument):
        if operation == 4:
            return self.blocks
        if operation == 5:
            return BLOCK
        if operation == 6:
            if self._dead():
                return -5
            self.data[argument * BLOCK : (argument + 1) * BLOCK] = b"\xff" * BLOCK
            self.erased += 1
        return 0


def install(root, artifact, received, peak=None):
    """One boot of a device that has the job; returns when it resets or loses its power."""

    async def source(job, stream, part, size, sink, have=None, tick=None):
        from edgeagent.ota import transfer

        del transfer  # it is in memory then
        data = artifact.parts()[part]
        for number in range((size + BLOCK - 1) // BLOCK):
            if not (have and have[number >> 3] >> (number & 7) & 1):
                block = data[number * BLOCK : (number + 1) * BLOCK]
                received[part] += len(block)
                sink(number, block)
                if peak:
                    peak()
                await asyncio.sleep(0)

    agent = Agent(None, root)
    agent.client = agent
    agent.config.trust = root + "/trust.json"
    job = Job(agent, artifact.job())
    try:
        asyncio.run(ota.run(job, source))
    except Reset:
        pass
    return trial.status(root)["state"]


def artifact_of(files):
    return Artifact(files, boards=["TEST"])


def ready(flash, new=True):
    if new:
        vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/flash")


def prepare(blocks):
    flash = Flash(blocks)
    ready(flash)
    os.mkdir("/flash/slots")
    with open("/flash/slots/trust.json", "w") as f:
        json.dump(trust(), f)
    return flash


def data(size, seed=1):
    """Blocks that differ."""
    out = bytearray(size)
    for at in range(0, size, 64):
        out[at] = (at >> 6 ^ seed) & 255
        out[at + 1 if at + 1 < size else at] = at >> 14 & 255
    return bytes(out)


def flash_figures():
    artifact = artifact_of([("app.mpy", data(20000)), ("data.bin", data(SIZE - 20000, 2))])
    flash = prepare(900)
    flash.programmed = flash.erased = 0
    records = [0]
    real = compat.write_atomic

    def counted(path, content, private=False):
        records[0] += 1
        real(path, content, private)

    for module in (ota, trial):
        module.write_atomic = counted
    install("/flash/slots", artifact, [0, 0, 0])
    return {
        "flash_programmed_ratio": round(flash.programmed / SIZE, 3),
        "flash_erased_ratio": round(flash.erased * BLOCK / SIZE, 3),
        "records_written": records[0],
    }


def cuts():
    artifact = artifact_of([("app.mpy", data(20000)), ("data.bin", data(SIZE - 20000, 2))])
    clean = [0, 0, 0]
    flash = prepare(900)
    before = flash.operations
    install("/flash/slots", artifact, clean)
    operations = flash.operations - before
    vfs.umount("/flash")
    flash = prepare(900)
    state = SEED
    received = [0, 0, 0]
    done = 0
    while done < CUTS:
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        # Uniform, so many that all of them fall into one update.
        flash.fuse = 1 + (state >> 8) % (2 * operations // (CUTS + 1))
        try:
            if install("/flash/slots", artifact, received) == "trial":
                break
        except (UpdateError, OSError):
            pass
        done += 1
        flash.fuse = -1
        vfs.umount("/flash")
        gc.collect()
        ready(flash, False)
    flash.fuse = -1
    install("/flash/slots", artifact, received)
    return {
        "cuts": done,
        "cuts_seed": SEED,
        "cuts_bytes_ratio": round(sum(received) / sum(clean), 4),
        "cuts_blocks_twice_each": round((sum(received) - sum(clean)) / BLOCK / done, 2),
        "flash_operations": operations,
    }


def main(mode):
    log.configure(100)
    if mode == "flash":
        found = flash_figures()
    elif mode == "cuts":
        found = cuts()
    else:
        found = heap(mode)
    print(json.dumps(found))


def heap(mode):
    files = [("data.bin", data(SIZE))]
    if mode == "heap-files":
        files = [("f%02d.mpy" % n, data(1000 + n, n)) for n in range(100)]
    artifact = artifact_of(files)
    # Once before: MicroPython's table of names doubles when it is full, which is a matter of chance.
    before = set(sys.modules)
    prepare(900)
    install("/flash/slots", artifact, [0, 0, 0])
    vfs.umount("/flash")
    launch._unload(before)
    prepare(900)
    gc.collect()
    base = gc.mem_alloc()
    most = [0]

    def peak():
        gc.collect()
        most[0] = max(most[0], gc.mem_alloc() - base)

    install("/flash/slots", artifact, [0, 0, 0], peak)
    return {mode.replace("-", "_") + "_bytes": most[0]}


main(sys.argv[1])
