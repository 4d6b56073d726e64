# SPDX-License-Identifier: Apache-2.0
"""A bad link on demand: a TCP proxy between a device and its broker that delays, cuts, silences or soils the stream.

    python -m hil.link_faults --listen 0.0.0.0:8884 --to broker.local:8883 --fault delay=0.3 --fault rate=2400
    python -m hil.link_faults --listen :1884 --to localhost:1883 --fault reset@up:packet:3 --connections 1

What it models:
    delay=SECONDS        latency: each read waits so long before it is passed on, in both directions
    rate=BYTES           a slow radio: so many bytes a second in each direction
    segment=BYTES        a network that splits: no write is larger (1: byte by byte, Nagle's algorithm off)
    close@PLACE          the peer's process ends: both sockets are closed in order (FIN)
    reset@PLACE          the peer crashes or a firewall cuts: both sockets are reset (RST)
    silence@PLACE        half-open, as after a NAT time-out or a dead radio: from then on all bytes of both directions
                         are swallowed, and the device learns nothing, not even that the broker has closed
    garbage@PLACE        64 random bytes are put into the stream
PLACE is DIRECTION:UNIT:NUMBER. Directions: `up`, from the device; `down`, to it. Units: `byte`; `packet`, of MQTT, for
which the device must not speak TLS; `record`, of TLS. The fault strikes when so many of them have passed: 0 is before
the first. TLS passes through unopened. Not modelled: loss, doubling and reordering of IP packets, which TCP hides.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

GARBAGE_BYTES = 64
_READ_BYTES = 65536
_CONNECT_S = 10.0
_PLACED = re.compile(r"(close|reset|silence|garbage)@(up|down):(byte|packet|record):(\d{1,9})")
_STEADY = re.compile(r"(delay|rate|segment)=(\d{1,9}(?:\.\d{1,6})?)")


class Fault(NamedTuple):
    """One `--fault`. number: seconds, bytes a second or bytes for the steady kinds; else the NUMBER of the place."""

    kind: str
    number: float
    direction: str = ""
    unit: str = ""

    def __str__(self) -> str:
        if not self.unit:
            return f"{self.kind}={self.number:g}"
        return f"{self.kind}@{self.direction}:{self.unit}:{self.number:g}"


def parse(text: str) -> Fault:
    """A Fault from its text form. Raises ValueError with a text for the operator."""
    if found := _PLACED.fullmatch(text):
        return Fault(found[1], int(found[4]), found[2], found[3])
    found = _STEADY.fullmatch(text)
    if not found:
        raise ValueError(
            f"{text!r} is none of delay|rate|segment=NUMBER, close|reset|silence|garbage@up|down:UNIT:NUMBER"
        )
    number = float(found[2])
    if found[1] != "delay" and (number < 1 or number % 1):
        raise ValueError(f"{text!r}: {found[1]} is a whole number of bytes from 1")
    return Fault(found[1], number)


class Framer:
    """Where the MQTT packets or TLS records of one direction end. No I/O; the bytes come in pieces of any size."""

    def __init__(self, unit: str) -> None:
        self.count = 0  # whole units so far
        self._unit = unit
        self._head = b""
        self._left = 0  # bytes of the body to come

    def _size(self) -> int | None:
        """Bytes after the header in `_head`, None if it is not whole."""
        head = self._head
        if self._unit == "record":  # type, version, length: RFC 8446, 5.1
            return int.from_bytes(head[3:5], "big") if len(head) == 5 else None
        if len(head) < 2 or (head[-1] > 127 and len(head) < 5):  # MQTT 3.1.1, 2.2.3
            return None
        return sum((byte & 127) << 7 * place for place, byte in enumerate(head[1:]))

    def ends(self, data: bytes) -> list[int]:
        """The offsets in `data` just after the last byte of a unit."""
        found, at = [], 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
            else:
                self._head += data[at : at + 1]
                at += 1
                size = self._size()
                if size is None:
                    continue
                self._head = b""
                self._left = size
            if not self._left:
                found.append(at)
                self.count += 1
        return found


class _Cut(Exception):
    """The connection ends here. reset: not in order."""

    def __init__(self, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class _Connection:
    """One connection of a device and its counterpart to the broker."""

    def __init__(self, faults: Sequence[Fault], seed: int, report: Callable[[str], None]) -> None:
        steady = {fault.kind: fault.number for fault in faults if not fault.unit}
        self._delay, self._rate = steady.get("delay", 0.0), steady.get("rate", 0.0)
        self._segment = int(steady.get("segment", _READ_BYTES))
        self._placed = [fault for fault in faults if fault.unit]
        self._random = random.Random(seed)
        self._report = report
        self._silent = False
        self.framers = {(side, unit): Framer(unit) for side in ("up", "down") for unit in ("packet", "record")}

    async def join(
        self,
        device: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        broker: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass bytes until one side ends or a fault does it."""
        pumps = [
            asyncio.create_task(self._pump("up", device[0], broker[1])),
            asyncio.create_task(self._pump("down", broker[0], device[1])),
        ]
        reset = False
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                error = pump.exception()
                reset = reset or (error.reset if isinstance(error, _Cut) else error is not None)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in (device[1], broker[1]):
                if reset:
                    with contextlib.suppress(OSError):
                        link: socket.socket = writer.get_extra_info("socket")
                        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                writer.close()

    async def _pump(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        position = 0
        data = b""
        while True:
            if direction == "up" and data and not position:
                self._expect(data[0])
            at = 0
            for offset, fault in self._strikes(direction, position, data):
                await self._pass(data[at:offset], writer)
                at = offset
                await self._strike(fault, writer)
            await self._pass(data[at:], writer)
            position += len(data)
            data = await reader.read(_READ_BYTES)
            if not data:
                if direction == "down" and self._silent:
                    await asyncio.Event().wait()  # the device must not learn it
                return
            if self._delay:
                await asyncio.sleep(self._delay)

    def _expect(self, first: int) -> None:
        """Refuse to count packets or records in a stream that has none."""
        wanted = {fault.unit for fault in self._placed} - {"byte"}
        if wanted - {"record" if first == 22 else "packet"}:
            self._report(f"the device does not begin with a whole {min(wanted)}: TLS or not?")
            raise _Cut(False)

    def _strikes(self, direction: str, position: int, data: bytes) -> list[tuple[int, Fault]]:
        """(offset in `data`, fault) of what is due in it, in order; `data` is empty only at the very beginning."""
        before, ends = {}, {}
        for unit in ("packet", "record"):
            framer = self.framers[direction, unit]
            before[unit] = framer.count
            ends[unit] = framer.ends(data)
        due = []
        for fault in self._placed:
            number = int(fault.number)
            if fault.direction != direction:
                continue
            if fault.unit == "byte" or not data:
                offset = number - position
                if 0 <= offset <= len(data) and (offset or not position):
                    due.append((offset, fault))
            elif 0 < number - before[fault.unit] <= len(ends[fault.unit]):
                due.append((ends[fault.unit][number - before[fault.unit] - 1], fault))
        for _, fault in due:
            self._placed.remove(fault)
        return sorted(due, key=lambda item: item[0])

    async def _strike(self, fault: Fault, writer: asyncio.StreamWriter) -> None:
        self._report(str(fault))
        if fault.kind == "garbage":
            await self._pass(self._random.randbytes(GARBAGE_BYTES), writer)
        elif fault.kind == "silence":
            self._silent = True
        else:
            raise _Cut(fault.kind == "reset")

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(data), self._segment):
            if self._silent:
                return
            piece = data[at : at + self._segment]
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(len(piece) / self._rate if self._rate else 0)


class LinkFaults:
    """The proxy. `faults` count for connections that are accepted from then on and may be replaced at any time.

    bad: how many more connections have the faults, None for all. connections: how many were accepted. struck: the
    faults that have happened, as text. Seeds of garbage: `seed` plus the number of the connection.
    """

    def __init__(
        self,
        host: str,
        port: int,
        faults: Sequence[Fault] = (),
        seed: int = 0,
        report: Callable[[str], None] = lambda text: None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """host, port: the broker. report: told of connections and faults, a line each. tls: for the broker's side, so
        that a device without TLS can be cut at packets in front of a broker that wants TLS.
        """
        self.faults = list(faults)
        self.bad: int | None = None
        self.connections = 0
        self.struck: list[str] = []
        self._broker = (host, port)
        self._tls = tls
        self._seed = seed
        self._report = report
        self._latest: _Connection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; the port. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, host or None, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close everything."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def passed(self, direction: str, unit: str = "packet") -> int:
        """How many whole packets or records the latest connection has had in that direction."""
        return self._latest.framers[direction, unit].count if self._latest else 0

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        faults = self.faults if self.bad is None or self.bad > 0 else []
        self.bad = None if self.bad is None else self.bad - 1
        try:
            async with asyncio.timeout(_CONNECT_S):
                broker = await asyncio.open_connection(*self._broker, ssl=self._tls)
            self._report(f"connection {number}: open")
            self._latest = _Connection(faults, self._seed + number, lambda fault: self._struck(number, fault))
            await self._latest.join((reader, writer), broker)
            self._report(f"connection {number}: over")
        except OSError as error:
            self._report(f"connection {number}: {self._broker[0]}:{self._broker[1]}: {error}")
        except asyncio.CancelledError:
            pass  # stop()
        finally:
            writer.close()
            self._tasks.discard(task)

    def _struck(self, number: int, fault: str) -> None:
        self.struck.append(fault)
        self._report(f"connection {number}: {fault}")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _fault(text: str) -> Fault:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def _serve(options: argparse.Namespace) -> None:
    def report(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    host, port = options.to
    proxy = LinkFaults(host or "127.0.0.1", port, options.fault, options.seed, report)
    proxy.bad = options.connections
    await proxy.start(*options.listen)
    print(f"{options.listen[0] or '*'}:{options.listen[1]} -> {host}:{port}", file=sys.stderr, flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await proxy.stop()


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="hil.link_faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listen", type=_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--to", type=_address, required=True, metavar="HOST:PORT", help="the broker")
    parser.add_argument("--fault", type=_fault, action="append", default=[], help="may be given several times")
    parser.add_argument("--connections", type=int, help="only the first so many are bad (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of garbage")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_serve(options))
    except OSError as error:
        print(f"cannot listen on {options.listen[0]}:{options.listen[1]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
