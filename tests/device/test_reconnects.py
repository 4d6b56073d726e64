# SPDX-License-Identifier: Apache-2.0
"""Nothing grows over reconnects: heap and open files of both runtimes, over mutual TLS, every third link cut off.

As a program (`python -m tests.device.test_reconnects COUNT`, `make soak`) it prints the figures of a long run.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.device.test_link_faults import program
from tests.device.test_mqtt_tls import RUNTIMES, Runtime
from tests.fleet.broker_support import world, yard

COUNT = 200
EACH_S = 1.0  # far more than one connection takes
# Between two looks nothing is kept; what a look itself and freed blocks in use by chance make is below this.
SLACK = {"cpython": 400, "micropython": 2048}


async def reconnect(folder: Path, runtime: Runtime, count: int) -> list[list[int]]:
    """[heap, open files, resident pages] after 20 connections, half of `count`, and all."""
    async with world(folder) as here:
        here.register.enroll("dev", yard().credentials("dev").certificate_id)
        async with program(runtime, folder, here.port, tls=True) as device:
            found = await device.ask("reconnects", "r", count, seconds=count * EACH_S)
    held: list[list[int]] = found["held"]
    return held


def grown(runtime: Runtime, held: list[list[int]]) -> bool:
    return max(held[1][0], held[2][0]) > held[0][0] + SLACK[runtime.name] or held[2][1] > held[0][1]


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
def test_reconnects_leave_nothing_behind(tmp_path: Path, runtime: Runtime) -> None:
    held = asyncio.run(reconnect(tmp_path, runtime, COUNT))
    assert not grown(runtime, held), held


def main() -> int:
    count = int(sys.argv[1])
    status = 0
    for runtime in RUNTIMES:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            held = asyncio.run(reconnect(Path(folder), runtime, count))
        unit = {"cpython": "memory blocks", "micropython": "bytes of heap"}[runtime.name]
        for place, (heap, files, pages) in zip(("start", "middle", "end"), held, strict=True):
            print(f"{runtime.name}, {place}: {heap} {unit}, {files} open files, {pages * 4} KB resident", flush=True)
        print(f"{runtime.name}: {count} reconnects in {time.monotonic() - start:.0f} s", flush=True)
        status |= grown(runtime, held)
    return status


if __name__ == "__main__":
    sys.exit(main())
