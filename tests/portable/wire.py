# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC110 - a condition is awaited turn by turn of the loop: the same on both runtimes
"""An in-memory connection for client tests on both runtimes: the test itself plays the server, packet by packet."""

import asyncio

from edgeagent.mqtt.client import Client


class End:
    """One end of a connection, reader and writer in one, as CPython's streams behave."""

    def __init__(self):
        self.inbox = bytearray()
        self.changed = asyncio.Event()
        self.eof = False
        self.closed = False
        self.broken = None  # raised by the next write or read
        self.stalled = False  # drain() does not return
        self.peer = None
        self.transport = self  # as CPython's writers have one

    def abort(self):
        pass

    def write(self, data):
        if self.broken:
            raise self.broken
        self.peer.inbox.extend(data)
        self.peer.changed.set()

    async def drain(self):
        while self.stalled:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)

    async def available(self):
        while not self.inbox:
            if self.broken:
                raise self.broken
            if self.eof:
                raise EOFError
            self.changed.clear()
            await self.changed.wait()

    async def readexactly(self, n):
        data = b""
        while len(data) < n:
            await self.available()
            part = bytes(self.inbox[: n - len(data)])
            self.inbox[: len(part)] = b""
            data += part
        return data

    def fail(self, error):
        self.broken = error
        self.changed.set()

    def close(self):
        self.closed = True
        self.peer.eof = True
        self.peer.changed.set()

    async def wait_closed(self):
        self.close()
        await asyncio.sleep(0)


class BoardEnd(End):
    """The same as MicroPython's streams behave: readinto, and output that waits for drain in out_buf."""

    def __init__(self):
        End.__init__(self)
        self.out_buf = b""

    def close(self):
        pass

    async def wait_closed(self):
        End.close(self)

    async def readinto(self, view):
        try:
            await self.available()
        except EOFError:
            return 0
        part = bytes(self.inbox[: min(len(view), 7)])  # in small pieces, as records come
        self.inbox[: len(part)] = b""
        view[: len(part)] = part
        return len(part)

    def write(self, data):
        if self.stalled:
            self.out_buf += bytes(data)
        else:
            End.write(self, data)


class Server:
    """The far side of one Client. `opened` counts connections; `end` is the server's end of the latest."""

    def __init__(self, board=False, **options):
        self.kind = BoardEnd if board else End
        self.opened = 0
        self.end = None
        self.far = None
        self.client = Client(self.open, "thing-1", **options)

    async def open(self):
        await asyncio.sleep(0)
        self.end, self.far = End(), self.kind()
        self.end.peer, self.far.peer = self.far, self.end
        self.opened += 1
        return self.far, self.far

    def send(self, data):
        self.end.write(data)

    async def receive(self):
        """(first byte, body) of the next packet; bodies here are shorter than 16 KB."""
        head = (await self.end.readexactly(1))[0]
        size = (await self.end.readexactly(1))[0]
        if size > 127:
            size = size - 128 + ((await self.end.readexactly(1))[0] << 7)
        return head, await self.end.readexactly(size)

    async def serve(self, session=0):
        """Answer everything as a broker does, on every connection, until cancelled."""
        served = None
        while True:
            while self.end is served:
                await asyncio.sleep(0)
            served = self.end
            try:
                while True:
                    head, body = await self.receive()
                    if head >> 4 == 1:
                        served.write(bytes((0x20, 2, session, 0)))
                    elif head >> 4 == 3 and head & 2:
                        at = 2 + body[1]
                        served.write(b"\x40\x02" + body[at : at + 2])
                    elif head == 0x30:
                        served.write(bytes((head, len(body))) + body if len(body) < 128 else b"")  # comes back
                    elif head == 0x82:
                        served.write(b"\x90\x03" + body[:2] + b"\x01")
                    elif head == 0xA2:
                        served.write(b"\xb0\x02" + body[:2])
                    elif head == 0xC0:
                        served.write(b"\xd0\x00")
            except EOFError:
                pass

    async def accept(self, session=0):
        """Let the client connect; its run() task."""
        connecting = asyncio.create_task(self.client.connect())
        while self.end is None or self.end.peer.closed:
            await asyncio.sleep(0)
        await self.receive()
        self.send(bytes((0x20, 2, session, 0)))
        self.kept = await connecting
        return asyncio.create_task(self.client.run())


async def outcome(awaitable):
    """The exception that `awaitable` ends with, None if it returns."""
    try:
        await asyncio.wait_for(awaitable, 5)
    except Exception as error:
        return error
    return None


def play(scenario):
    """Run one scenario to its end."""
    if hasattr(asyncio, "new_event_loop"):
        asyncio.new_event_loop()  # MicroPython keeps the state of the last run
    return asyncio.run(scenario)
