# SPDX-License-Identifier: Apache-2.0
"""Publishes with QoS 1 and prints messages per second: `publish_program.py WHO COUNT BYTES HOST PORT NAME CA CERT KEY`.

Runs on CPython and MicroPython. WHO: `ours`, the agent's client with eight in flight; `simple`, what umqtt.simple does:
one blocking socket, one message at a time, no checks of what comes back beyond the packet id.
"""

import asyncio
import ssl
import sys

from edgeagent import clock
from edgeagent.errors import AgentError
from edgeagent.mqtt import packet
from edgeagent.mqtt.client import Client
from edgeagent.ports import detect

who, count, size, host, port, name, ca, certificate, key = sys.argv[1:]
TOPIC = "edge/%s/bench" % name
PAYLOAD = bytes(int(size))
WORKERS = 8


async def ours():
    machine = detect()
    client = Client(lambda: machine.open_stream(host, int(port), host, ca, certificate, key), name)
    await client.connect()
    reader = asyncio.create_task(run(client))
    left = [int(count)]

    async def worker():
        while left[0] > 0:
            left[0] -= 1
            await client.publish(TOPIC, PAYLOAD)

    start = clock.ticks()
    tasks = [asyncio.create_task(worker()) for _ in range(WORKERS)]
    for task in tasks:
        await task
    spent = clock.elapsed_ms(start)
    await client.close()
    await reader
    return spent


async def run(client):
    try:
        await client.run()
    except AgentError:
        pass


def exactly(stream, size):
    data = b""
    while len(data) < size:
        part = stream.read(size - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


def simple():
    import socket

    plain = socket.socket()
    plain.connect(socket.getaddrinfo(host, int(port))[0][-1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    if sys.implementation.name == "micropython":
        with open(ca, "rb") as f:
            context.load_verify_locations(cadata=f.read())
    else:
        context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    link = context.wrap_socket(plain, server_hostname=host)
    stream = link if hasattr(link, "readinto") and not hasattr(link, "makefile") else link.makefile("rwb", 0)
    stream.write(packet.connect(name, 60, True))
    exactly(stream, 4)
    start = clock.ticks()
    for number in range(1, int(count) + 1):
        number = number % 65535 + 1
        stream.write(packet.publish(TOPIC, len(PAYLOAD), 1, False, number))
        stream.write(PAYLOAD)
        if exactly(stream, 4)[2:] != packet.number(number):
            raise OSError("not our PUBACK")
    return clock.elapsed_ms(start)


spent = asyncio.run(ours()) if who == "ours" else simple()
print(int(count) * 1000 // max(spent, 1))
