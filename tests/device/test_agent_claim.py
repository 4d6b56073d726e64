# SPDX-License-Identifier: Apache-2.0
"""First contact with a whole site: by claim to an identity of its own, on both runtimes, and never twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from edgeagent.identity import pem_to_der
from edgefleet.shadow import service as shadows
from edgefleet.site import Ready, Site, SiteConfig
from tests.device.test_agent_micropython import HEAP, board_files  # noqa: F401 - a fixture
from tests.support import MICROPYTHON, ROOT

WAIT_S = 30.0


def at_site(folder: Path, scenario: Callable[[Site, Ready], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        site = Site(SiteConfig(folder / "site", mqtt_port=0, api_port=0))
        ready = await site.start()
        try:
            await asyncio.wait_for(scenario(site, ready), 60)
        finally:
            await site.stop()

    asyncio.run(main())


def configuration(ready: Ready, serial: str, **members: Any) -> dict[str, Any]:
    return {
        "endpoint": "127.0.0.1",
        "port": ready.mqtt_port,
        "ca": ready.ca,
        "state_dir": "state",
        "slots_dir": "slots",
        "claim": {
            "certificate": ready.claim_certificate,
            "key": ready.claim_key,
            "template": ready.template,
            "parameters": {"SerialNumber": serial},
            **members,
        },
    }


def reported(site: Site, thing: str) -> dict[str, Any]:
    with site.store.reading() as tx:
        shadow = shadows.find(tx, thing, None)
    return {} if shadow is None else dict(shadow.state.get("reported") or {})


def certificates(site: Site) -> int:
    with site.store.reading() as tx:
        return int(tx.value("SELECT count(*) FROM certificates"))


async def serve(site: Site, thing: str, runtime: str, *command: str, folder: Path, environment: dict[str, str]) -> None:
    """Run an agent until it has reported its attributes, with a runtime that begins with `runtime`."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + WAIT_S
        while not str(reported(site, thing).get("runtime", "")).startswith(runtime):
            if process.returncode is not None or time.monotonic() > deadline:
                process.kill()
                assert process.stdout is not None
                raise AssertionError((await process.stdout.read()).decode())
            await asyncio.sleep(0.02)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("csr", [False, True])
def test_a_host_gets_its_identity_once(tmp_path: Path, csr: bool) -> None:
    async def scenario(site: Site, ready: Ready) -> None:
        (tmp_path / "agent.json").write_text(json.dumps(configuration(ready, "pi-7", csr=csr)))
        command = (sys.executable, "-m", "edgeagent.cli", "run", "--config", str(tmp_path / "agent.json"))
        before = certificates(site)
        await serve(site, "pi-7", "cpython", *command, folder=ROOT, environment={})
        assert certificates(site) == before + 1
        site.commit(lambda tx: tx.execute("DELETE FROM shadows"))
        await serve(site, "pi-7", "cpython", *command, folder=ROOT, environment={})
        assert certificates(site) == before + 1

    at_site(tmp_path, scenario)


def test_the_command_provisions_and_prints_the_name_and_the_second_time_only_prints(tmp_path: Path) -> None:
    async def scenario(site: Site, ready: Ready) -> None:
        (tmp_path / "agent.json").write_text(json.dumps(configuration(ready, "pi-8")))
        before = certificates(site)
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edgeagent.cli", "provision", "--config", str(tmp_path / "agent.json")),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
            )
            out = (await process.communicate())[0].decode()
            assert (process.returncode, out) == (0, "pi-8\n")
        assert certificates(site) == before + 1

    at_site(tmp_path, scenario)


def test_a_board_gets_its_identity_once_within_its_heap(tmp_path: Path, board_files: Path) -> None:  # noqa: F811
    async def scenario(site: Site, ready: Ready) -> None:
        config = configuration(ready, "esp-9")
        for name, holder, member in (
            ("ca", config, "ca"),
            ("claim-cert", config["claim"], "certificate"),
            ("claim-key", config["claim"], "key"),
        ):
            pem = Path(holder[member]).read_bytes()  # noqa: ASYNC240 - nothing else is running yet
            (tmp_path / f"{name}.der").write_bytes(pem_to_der(pem))
            holder[member] = f"{name}.der"
        (tmp_path / "agent.json").write_text(json.dumps(config))
        (tmp_path / "main.py").write_text('from edgeagent import Agent\nAgent.from_file("agent.json").run()\n')
        command = (MICROPYTHON, "-X", f"heapsize={HEAP}", "main.py")
        environment = {"MICROPYPATH": f"{board_files}:.frozen"}
        before = certificates(site)
        for _ in range(2):
            site.commit(lambda tx: tx.execute("DELETE FROM shadows"))
            await serve(site, "esp-9", "micropython", *command, folder=tmp_path, environment=environment)
        assert certificates(site) == before + 1

    at_site(tmp_path, scenario)


def test_provisioning_that_fails_is_one_line(tmp_path: Path) -> None:
    async def scenario(site: Site, ready: Ready) -> None:
        config = configuration(ready, "pi-7")
        config["claim"]["template"] = "nothing"
        (tmp_path / "agent.json").write_text(json.dumps(config))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgeagent.cli", "provision", "--config", str(tmp_path / "agent.json")),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        err = (await process.communicate())[1].decode()
        assert process.returncode == 1
        assert err.startswith("edgeagent: ")
        assert err.count("\n") == 1

    at_site(tmp_path, scenario)
