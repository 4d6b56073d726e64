# SPDX-License-Identifier: Apache-2.0
"""Figures of the transfer of updates: `python -m bench.ota`. The last line is all of them as JSON.

throughput  the agent's MQTT client and Fetcher on CPython, without TLS, against a stream server behind three links:
            loopback; `line`, 1 MB/s with a round trip of 100 ms where each segment of 1460 bytes is lost with 1 %: what
            is lost, and all after it, comes one round trip later (TCP's fast retransmission, without its congestion
            window); `reno`, the rate that TCP Reno reaches on that line (Mathis: 1.22 · 1460 B / 100 ms / √0.01 = 178
            KB/s), without stalls. Once as it is and once with a window of one block. TCP hides the loss from MQTT, so
            no message is lost here; tests/portable/test_transfer.py has that.
cuts        100 power cuts at random flash operations of one update of 1.5 MB, on littlefs in MicroPython: what is
            downloaded over all boots, against the payload.
flash       programmed and erased bytes of one such update without cuts, and records written beside the payload.
delta       patches between real releases, and what applying them costs (bench/delta.py).
verify      operations of each signature scheme (bench/verify.py).
heap        what the update takes of the heap beyond the agent's own, at most, in the same program: with a payload of
            1.5 MB, and with 100 files.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.delta import deltas
from bench.figures import tell
from bench.verify import verify
from edgeagent.mqtt.client import Client
from edgeagent.ota.transfer import Fetcher
from edgefleet.streams import cbor
from hil.virtual_board import interpreter

ROOT = Path(__file__).resolve().parent.parent
SIZE = 1_500_000
SEED = 20261123
ROUND_TRIP_S = 0.1
SEGMENT = 1460
LINKS = {"loopback": (0, 0.0), "line": (1_000_000, 0.01), "reno": (178_000, 0.0)}  # bytes a second, loss
BLOCK = 4096


class Line:
    """One direction of the bad line."""

    def __init__(self, writer: asyncio.StreamWriter, rate: int, loss: float) -> None:
        self._writer, self._rate, self._loss = writer, rate, loss
        self._chance = random.Random(SEED)
        self._free = 0.0  # when the last segment arrives
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._task = asyncio.create_task(self._run()) if rate else None

    def send(self, data: bytes) -> None:
        if not self._rate:
            self._writer.write(data)
            return
        for at in range(0, len(data), SEGMENT):
            piece = data[at : at + SEGMENT]
            late = ROUND_TRIP_S if self._chance.random() < self._loss else 0
            self._free = max(self._free, time.monotonic() + ROUND_TRIP_S / 2) + len(piece) / self._rate + late
            self._queue.put_nowait((self._free, piece))

    async def _run(self) -> None:
        while True:
            due, piece = await self._queue.get()
            await asyncio.sleep(max(due - time.monotonic(), 0))
            self._writer.write(piece)

    def close(self) -> None:
        if self._task:
            self._task.cancel()


def _packet(head: int, body: bytes) -> bytes:
    size, out = len(body), bytearray([head])
    while True:
        out.append(size & 127 | (128 if size > 127 else 0))
        size >>= 7
        if not size:
            return bytes(out) + body


class Server:
    """The stream service behind an MQTT 3.1.1 server: as little as the measured client needs."""

    def __init__(self, data: bytes, rate: int, loss: float) -> None:
        self._data, self._rate, self._loss = data, rate, loss

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(writer, self._rate, self._loss)
        try:
            while True:
                head = (await reader.readexactly(1))[0]
                size = shift = 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    size |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                body = await reader.readexactly(size)
                # The way up: what is asked arrives half a round trip later. Requests are single segments.
                asyncio.get_running_loop().call_later(
                    ROUND_TRIP_S / 2 if self._rate else 0, self._answer, head, body, line
                )
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            line.close()
            writer.close()

    def _answer(self, head: int, body: bytes, line: Line) -> None:
        kind = head >> 4
        if kind == 1:
            line.send(b"\x20\x02\x00\x00")
        elif kind == 8:
            line.send(_packet(0x90, body[:2] + b"\x00" * 2))
        elif kind == 10:
            line.send(_packet(0xB0, body[:2]))
        elif kind == 12:
            line.send(b"\xd0\x00")
        elif kind == 3:
            end = 2 + int.from_bytes(body[:2], "big")
            topic = body[2:end].decode().replace("/get/", "/data/")
            as_json = topic.endswith("json")
            asked = json.loads(body[end:]) if as_json else cbor.decode(body[end:])
            for number in range(asked["o"], asked["o"] + asked["n"]):
                part = self._data[number * BLOCK : (number + 1) * BLOCK]
                answer: dict[str, Any] = {"c": asked["c"], "f": asked["f"], "l": len(part), "i": number, "p": part}
                if as_json:
                    answer["p"] = base64.b64encode(part).decode()
                payload = json.dumps(answer).encode() if as_json else cbor.encode(answer)
                name = topic.encode()
                line.send(_packet(0x30, len(name).to_bytes(2, "big") + name + payload))


class Agent:
    thing_name = "bench"
    client: Client


async def _fetch(data: bytes, size: int, link: tuple[int, float], window: int, form: str) -> float:
    """Bytes a second."""
    server = await asyncio.start_server(Server(data, *link).serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    agent = Agent()
    agent.client = client = Client(lambda: asyncio.open_connection("127.0.0.1", port), "bench")
    await client.connect()
    run = asyncio.create_task(client.run())
    fetcher = Fetcher(agent, "s", form)
    fetcher.WINDOW = window
    fetcher._window = min(fetcher._window, window)
    got: list[int] = []
    start = time.monotonic()
    await fetcher.fetch(0, size, lambda number, block: got.append(len(block)))
    seconds = time.monotonic() - start
    assert sum(got) == size
    await fetcher.close()
    await client.close()
    await asyncio.gather(run, return_exceptions=True)
    server.close()
    return size / seconds


def throughput() -> dict[str, float]:
    data = random.Random(SEED).randbytes(SIZE)
    found = {}
    for name, link in LINKS.items():
        for form in ("cbor", "json"):
            many = asyncio.run(_fetch(data, SIZE, link, Fetcher.WINDOW, form))
            single = asyncio.run(_fetch(data, 60 * BLOCK if link[0] else SIZE, link, 1, form))
            found[f"{name}_{form}_kb_s"] = round(many / 1000, 1)
            found[f"{name}_{form}_one_block_kb_s"] = round(single / 1000, 1)
            found[f"{name}_{form}_gain"] = round(many / single, 1)
    return found


def board(mode: str) -> dict[str, Any]:
    """A figure of bench/ota_program.py on MicroPython."""
    path = ":".join(str(ROOT / part) for part in ("tests/micropython", ""))
    result = subprocess.run(
        [interpreter(), "-X", "heapsize=24m", str(ROOT / "bench" / "ota_program.py"), mode],
        env={**os.environ, "MICROPYPATH": f"{path}:.frozen"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(result.stdout + result.stderr)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def figures() -> dict[str, Any]:
    """All figures."""
    found: dict[str, Any] = dict(throughput())
    for mode in ("flash", "cuts", "heap-payload", "heap-files"):
        found |= board(mode)
    found |= deltas()
    found["verify"] = verify()
    return found


if __name__ == "__main__":
    tell(figures())
