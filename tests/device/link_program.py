# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC110, SIM105 - MicroPython has no contextlib, and waiting turn by turn is the same on both
"""A device program for test_link_faults.py and test_reconnects.py, run by CPython and by MicroPython: whole sessions
over a link that may fail at any place.

Arguments: broker port and, for TLS, server host name and the paths of CA, certificate and key. Each line of standard
input is a command; its outcome is one JSON line.

    session NAME             a kept session of client dev-NAME that must get three messages out and three in
    reconnects NAME COUNT    connect, subscribe, publish, close, so many times; what was held early, mid-way, at the end
"""

import asyncio
import gc
import json
import os
import sys
import time

from edgeagent.errors import AgentError
from edgeagent.limits import LIMITS
from edgeagent.mqtt.client import Client
from edgeagent.ports import detect

LIMITS.CONNECT_S = 2
LIMITS.REQUEST_S = 2
WANTED = 3


def open_stream():
    if len(sys.argv) > 2:
        return detect().open_stream("127.0.0.1", int(sys.argv[1]), *sys.argv[2:])
    return asyncio.open_connection("127.0.0.1", int(sys.argv[1]))


async def session(name):
    """It is over when all are acknowledged or received. `ends`: why links ended; `slowest`: seconds of one wait."""
    client = Client(open_stream, "dev-" + name, 1, clean=False)
    acknowledged, received, ends, waits = [], [], [], [0]

    client.on("dev/" + name + "/in", lambda topic, payload: received.append(bytes(payload).decode()))

    async def timed(awaitable):
        start = time.time()
        try:
            return await awaitable
        finally:
            waits.append(time.time() - start)

    async def deliver(text):
        while text not in acknowledged:
            try:
                await timed(client.publish("dev/" + name + "/out", text))
                acknowledged.append(text)
            except AgentError:
                await asyncio.sleep(0.02)

    async def link():
        await timed(client.connect())
        run = asyncio.create_task(live())
        try:
            if not ready.is_set():
                await timed(client.subscribe(["dev/" + name + "/in"]))
                ready.set()
        except AgentError:
            pass
        if finished.is_set():
            await client.close()
        await run

    async def live():
        try:
            await client.run()
        except AgentError as error:
            ends.append(f"{type(error).__name__}: {error}")

    async def links():
        while not finished.is_set():
            try:
                await link()
            except AgentError as error:
                ends.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.02)

    ready = asyncio.Event()
    finished = asyncio.Event()
    keeping = asyncio.create_task(links())
    await ready.wait()
    tasks = [asyncio.create_task(deliver(f"m{n}")) for n in range(WANTED)]
    for task in tasks:
        await task
    while len(set(received)) < WANTED:
        await asyncio.sleep(0.01)
    finished.set()
    await client.close()
    await keeping
    return {"acknowledged": acknowledged, "received": received, "ends": ends, "slowest": max(waits)}


def held():
    """[heap: bytes on MicroPython, memory blocks on CPython; open files; resident pages of the process]"""
    gc.collect()
    heap = gc.mem_alloc() if hasattr(gc, "mem_alloc") else sys.getallocatedblocks()
    with open("/proc/self/statm") as f:
        return [heap, len(os.listdir("/proc/self/fd")), int(f.read().split()[1])]


async def reconnects(name, count):
    client = Client(open_stream, "dev-" + name, 10)
    arrived = asyncio.Event()
    client.on("dev/" + name, lambda topic, payload: arrived.set())
    found = []
    for n in range(int(count)):
        if n in (20, int(count) // 2):  # the first few fill caches
            found.append(held())
        await client.connect()
        run = asyncio.create_task(client.run())
        await client.subscribe(["dev/" + name])
        arrived.clear()
        await client.publish("dev/" + name, b"x" * 100)
        await asyncio.wait_for(arrived.wait(), 5)
        if n % 3:
            await client.close()
        else:
            run.cancel()
        try:
            await run
        except (AgentError, asyncio.CancelledError):
            pass
    found.append(held())
    return {"held": found}


while True:
    line = sys.stdin.readline().split()
    if not line:
        break
    if hasattr(asyncio, "new_event_loop"):
        asyncio.new_event_loop()  # MicroPython keeps the state of the last run
    print(json.dumps(asyncio.run(globals()[line[0]](*line[1:]))))
    if hasattr(sys.stdout, "flush"):
        sys.stdout.flush()
