# SPDX-License-Identifier: Apache-2.0
"""What an idle, connected CPython agent costs in memory, with each transport. Ceilings may only go down."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgefleet.site import Ready, Site
from tests.device.test_agent_claim import at_site, configuration, reported
from tests.device.transport_contract import AWS, until
from tests.support import ROOT

# VmRSS in KiB, pages shared with other processes (interpreter, OpenSSL) included.
CEILINGS: dict[str, tuple[Any, int]] = {
    "default": (None, 30_720),
    "builtin": ("builtin", 27_000),
    "awsiotsdk": (AWS, 34_000),
}


def rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.parametrize("name", CEILINGS)
def test_an_idle_agent_stays_under_its_ceiling(tmp_path: Path, name: str) -> None:
    transport, ceiling = CEILINGS[name]

    async def scenario(site: Site, ready: Ready) -> None:
        config = configuration(ready, "pi-1")
        config["endpoint"] = "localhost"
        if transport is not None:
            config["transport"] = transport
        (tmp_path / "agent.json").write_text(json.dumps(config))
        command = (sys.executable, "-m", "edgeagent.cli", "run", "--config", str(tmp_path / "agent.json"))
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env={}, stdout=subprocess.DEVNULL)
        try:
            await until(lambda: "runtime" in reported(site, "pi-1"), "the agent")
            await asyncio.sleep(2)  # idle; what came with connecting is let go
            used = rss(process.pid)
        finally:
            process.kill()
            await process.wait()
        print(f"{name}: {used} KiB")
        assert used <= ceiling

    at_site(tmp_path, scenario)
