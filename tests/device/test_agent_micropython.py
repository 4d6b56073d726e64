# SPDX-License-Identifier: Apache-2.0
"""The agent as compiled for boards, on MicroPython with a 128 KB heap, against the real services over mutual TLS."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from edgeagent.identity import pem_to_der
from edgefleet import devices
from tests.device.ground import Ground, ground
from tests.support import MICROPYTHON

HEAP = "128k"
PROGRAM = """
from edgeagent import Agent
agent = Agent.from_file("agent.json", version="1.0.0")
agent.attribute("engineStarts", lambda: 21000)
agent.run()
"""


@pytest.fixture(scope="module")
def board_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed on a board."""
    library = tmp_path_factory.mktemp("lib")
    devices.write_agent(library / "agent", "UNIX_VIRTUAL")
    return library / "agent"


class Board:
    """A MicroPython process that is started again whenever it asks for it (status 75)."""

    def __init__(self, site: Ground, thing: str, library: Path) -> None:
        self.folder = site.folder.parent / thing
        data = site.enroll(thing, self.folder)
        for name, pem in (("cert", data["certificate"]), ("key", data["key"]), ("ca", str(site.ca))):
            (self.folder / f"{name}.der").write_bytes(pem_to_der(Path(pem).read_bytes()))
        data.update(certificate="cert.der", key="key.der", ca="ca.der", state_dir="state", slots_dir="slots")
        (self.folder / "agent.json").write_text(json.dumps(data))
        (self.folder / "main.py").write_text(PROGRAM)
        self._library = library
        self.boots = 0
        self.output = b""
        self._process: asyncio.subprocess.Process | None = None

    async def live(self) -> None:
        """Boot after boot, until cancelled or until it ends in another way, which is a failure."""
        while True:
            self.boots += 1
            self._process = await asyncio.create_subprocess_exec(
                MICROPYTHON,
                "-X",
                f"heapsize={HEAP}",
                "main.py",
                cwd=self.folder,
                env={"MICROPYPATH": f"{self._library}:.frozen"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            assert self._process.stdout is not None
            try:
                async for line in self._process.stdout:
                    self.output += line
                status = await self._process.wait()
            finally:
                if self._process.returncode is None:
                    self._process.kill()
                    await self._process.wait()
            assert status == 75, self.output.decode()


def on_board(folder: Path, library: Path, scenario: Callable[[Ground, Board], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with ground(folder / "site") as site:
            board = Board(site, "pump", library)
            life = asyncio.create_task(board.live())
            work = asyncio.create_task(scenario(site, board))
            try:
                done, _ = await asyncio.wait((life, work), timeout=40, return_when=asyncio.FIRST_COMPLETED)
                assert done, board.output.decode()
                for task in done:
                    try:
                        task.result()
                    except AssertionError as error:
                        raise AssertionError(f"{error}\n{board.output.decode()}") from None
            finally:
                for task in (life, work):
                    task.cancel()
                await asyncio.gather(life, work, return_exceptions=True)

    asyncio.run(main())


def test_it_reports_and_does_jobs_one_after_the_other(tmp_path: Path, board_files: Path) -> None:
    async def scenario(site: Ground, board: Board) -> None:
        await site.until(lambda: site.reported("pump").get("engineStarts") == 21000, "the report")
        assert site.reported("pump")["runtime"].startswith("micropython")
        for n in range(5):
            site.job(f"bundle-{n}", "pump", {"operation": "diagnostics"})
        site.job("unknown", "pump", {"operation": "dance"})
        site.job("large", "pump", {"operation": "dance", "a": "x" * 9000})
        site.job("huge", "pump", {"operation": "dance", "a": "x" * 25000})
        for n in range(5):
            status, details = await site.outcome(f"bundle-{n}", "pump")
            assert status == "SUCCEEDED", details
            assert hashlib.sha256(site.bundle("pump", f"bundle-{n}")).hexdigest() == details["sha256"]
        for name in ("unknown", "large", "huge"):
            status, details = await site.outcome(name, "pump")
            assert status == "REJECTED", details
        assert "8192" in details["reason"]
        assert board.boots == 1

    on_board(tmp_path, board_files, scenario)


def test_a_reboot_job_restarts_it_once(tmp_path: Path, board_files: Path) -> None:
    async def scenario(site: Ground, board: Board) -> None:
        site.job("j", "pump", {"operation": "reboot"})
        status, details = await site.outcome("j", "pump")
        assert (status, details["bootId"]) == ("SUCCEEDED", "boot-2")
        assert board.boots == 2

    on_board(tmp_path, board_files, scenario)


def test_a_config_job_survives_on_flash(tmp_path: Path, board_files: Path) -> None:
    async def scenario(site: Ground, board: Board) -> None:
        site.job("j", "pump", {"operation": "config", "config": {"attributes": {"hall": "A"}}})
        status, details = await site.outcome("j", "pump")
        assert (status, details) == ("SUCCEEDED", {"changed": "attributes"})
        assert json.loads((board.folder / "agent.json").read_text())["attributes"] == {"hall": "A"}

    on_board(tmp_path, board_files, scenario)


def test_it_comes_back_after_the_broker_was_away(tmp_path: Path, board_files: Path) -> None:
    async def scenario(site: Ground, board: Board) -> None:
        await site.until(lambda: site.reported("pump"), "the report")
        await site.stop()
        await site.start()
        site.job("j", "pump", {"operation": "dance"})
        assert (await site.outcome("j", "pump"))[0] == "REJECTED"
        assert board.boots == 1

    on_board(tmp_path, board_files, scenario)
