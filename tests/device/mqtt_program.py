# SPDX-License-Identifier: Apache-2.0
"""A device program for test_mqtt_tls.py, run by CPython and by MicroPython: one scenario against a real broker.

Arguments: scenario, broker port, server host name, client id, paths of CA, certificate and key. Prints one JSON line.
"""

import asyncio
import json
import sys

from edgeagent import topics
from edgeagent.errors import AgentError
from edgeagent.mqtt.client import Client
from edgeagent.mqtt.rpc import Requests
from edgeagent.ports import detect

scenario, port, hostname, name, ca, certificate, key = sys.argv[1:]


def make(clean=True):
    here = detect()
    return Client(lambda: here.open_stream("127.0.0.1", int(port), hostname, ca, certificate, key), name, clean=clean)


class Inbox:
    """Messages of one filter, in order."""

    def __init__(self, client, topic_filter):
        self.messages = []
        self.changed = asyncio.Event()
        client.on(topic_filter, self.put)

    def put(self, topic, payload):
        self.messages.append(payload)
        self.changed.set()

    async def take(self):
        while not self.messages:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 10)
        return self.messages.pop(0)


async def ended(run):
    """Why run() ended."""
    try:
        await run
    except AgentError as error:
        return str(error)


async def echo():
    client = make()
    inbox = Inbox(client, name + "/#")
    await client.connect()
    run = asyncio.create_task(client.run())
    await client.subscribe([(name + "/echo", 1)])
    sizes = []
    for size in (0, 1, 4096, 10000):
        await client.publish(name + "/echo", bytes(size))
        sizes.append(len(await inbox.take()))
    tasks = [asyncio.create_task(client.publish(name + "/echo", b"%d" % n)) for n in range(20)]
    for task in tasks:
        await task
    together = []
    for _ in range(20):
        together.append(int(await inbox.take()))
    await client.close()
    return {"sizes": sizes, "together": sorted(together), "ended": await ended(run)}


async def request():
    client = make()
    await client.connect()
    run = asyncio.create_task(client.run())
    requests = Requests(client)
    await requests.subscribe([topics.shadow(name, "get/" + end) for end in ("accepted", "rejected")])
    answer = await requests.call(topics.shadow(name, "get"), {})
    run.cancel()
    return {"state": answer["state"]}


async def resume():
    client = make(clean=False)
    inbox = Inbox(client, name + "/in")
    seen = [await client.connect()]
    run = asyncio.create_task(client.run())
    await client.subscribe([(name + "/in", 1)])
    await client.close()
    await ended(run)
    other = Client(client.open_stream, name + "-2")
    await other.connect()
    run = asyncio.create_task(other.run())
    await other.publish(name + "/in", b"while away")
    await other.close()
    await ended(run)
    seen.append(await client.connect())
    run = asyncio.create_task(client.run())
    message = await inbox.take()
    await client.close()
    return {"sessions": seen, "message": bytes(message).decode()}


async def denied():
    client = make()
    await client.connect()
    run = asyncio.create_task(client.run())
    try:
        await client.publish("somebody/else", b"x")
    finally:
        await client.close()
        await ended(run)


async def connect():
    await make().connect()


async def main():
    try:
        return await globals()[scenario]() or {}
    except AgentError as error:
        return {"error": type(error).__name__, "text": str(error)}


print(json.dumps(asyncio.run(main())))
