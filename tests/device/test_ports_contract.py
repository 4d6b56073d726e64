# SPDX-License-Identifier: Apache-2.0
"""Every port keeps the same contract (edgeagent/ports/base.py): one program on three emulated chips and on Linux."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgeagent.config import parse
from edgeagent.ports.linux import LinuxPort
from edgefleet.artifacts.build import compile_file
from hil.virtual_board import CHIPS, VirtualBoard
from tests.device.test_package import closure, path_of
from tests.support import ROOT

PORTS = ("edgeagent.ports.esp32", "edgeagent.ports.micropython", "edgeagent.ports.rp2", "edgeagent.ports")
PORT_OF = {"unix": "unix", "esp32": "esp32", "rp2": "rp2"}
PROGRAM = """
import asyncio, json, sys, time
from edgeagent import clock
from edgeagent.errors import AgentError
from edgeagent.ports import detect
port = detect()
def say(**what):
    print("SAY " + json.dumps(what))
"""


@cache
def port_files() -> dict[str, bytes]:
    """The ports and what they import, unlinked: `lib/edgeagent/….mpy` → bytecode."""
    found = {}
    for module in closure(PORTS):
        path = path_of(module)
        assert path is not None
        found["lib/" + str(path.relative_to(ROOT).with_suffix(".mpy"))] = compile_file(path, module)
    return found


class Board:
    def __init__(self, folder: Path, chip: str) -> None:
        self.chip = chip
        self.folder = folder
        self.board = VirtualBoard(folder / "board", heap="128k", chip=chip)

    def run(self, program: str) -> None:
        files = self.folder / "files"
        for target, data in port_files().items():
            (files / target).parent.mkdir(parents=True, exist_ok=True)
            (files / target).write_bytes(data)
        (files / "main.py").write_text(PROGRAM + program)
        self.board.flash(files)
        self.board.power_on()

    def said(self) -> list[dict[str, Any]]:
        lines = [line.strip() for line in self.board.console.split("\n")[:-1]]  # the last one is not complete
        return [json.loads(line[4:]) for line in lines if line.startswith("SAY ")]

    def wait(self, count: int, seconds: float = 20) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while len(self.said()) < count:
            assert time.monotonic() < deadline, self.board.console[-2000:]
            time.sleep(0.02)
        return self.said()


@pytest.fixture(params=CHIPS)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Board]:
    one = Board(tmp_path, request.param)
    yield one
    one.board.power_off()


def on_chip(chip: str) -> Callable[..., Any]:
    return pytest.mark.parametrize("board", [chip], indirect=True)


def test_facts_are_short_texts_that_name_the_port(board: Board) -> None:
    board.run("say(**port.facts())")
    (facts,) = board.wait(1)
    assert facts["port"] == PORT_OF[board.chip]
    assert {"esp32": "ESP32_GENERIC", "rp2": "RPI_PICO_W", "unix": "UNIX_VIRTUAL"}[board.chip] == facts["board"]
    assert {"esp32": "ESP32", "rp2": "RP2040", "unix": "host"}[board.chip] == facts["chip"]
    assert facts["runtime"].startswith("micropython 1.")


def test_a_reset_gives_a_new_boot_id_and_a_known_cause(board: Board) -> None:
    board.run(
        "say(id=port.boot_id(), again=port.boot_id(), cause=port.reset_cause())\n"
        "if port.boot_id() == 'boot-1': port.reset()"
    )
    first, second = board.wait(2)
    assert first == {"id": "boot-1", "again": "boot-1", "cause": "power-on"}
    # On rp2 machine.reset() is the watchdog's doing.
    assert second == {"id": "boot-2", "again": "boot-2", "cause": "watchdog" if board.chip == "rp2" else "hard"}


def test_memory_is_in_bytes(board: Board) -> None:
    board.run("port.boot_id(); say(**port.memory())")
    (memory,) = board.wait(1)
    assert 10_000 < memory["free"] < 128 * 1024
    assert memory["used"] > 10_000
    assert 100_000 < memory["flash_free"] < 1024 * 1024
    assert ("idf_largest" in memory) == (board.chip == "esp32")


def test_a_watchdog_of_any_length_is_fed_by_feed(board: Board) -> None:
    board.run(
        "dog = port.watchdog(120)\n"
        "async def work():\n    for _ in range(30):\n        dog.feed()\n        await asyncio.sleep(0.1)\n"
        "asyncio.run(work())\nsay(done=True)"
    )
    board.wait(1)
    assert len(board.board.resets) == 1


def test_a_watchdog_that_is_not_fed_restarts_the_board(board: Board) -> None:
    board.run(
        "say(cause=port.reset_cause())\n"
        "if port.reset_cause() == 'power-on':\n    port.watchdog(1)\n    while True: time.sleep_ms(50)"
    )
    assert board.wait(2, 30)[1] == {"cause": "watchdog"}


@on_chip("rp2")
def test_the_rp2_keeps_a_watchdog_that_is_longer_than_the_chips_own(board: Board) -> None:
    board.run(
        "port.watchdog(12)\nsay(at=time.ticks_ms())\n"
        "if port.reset_cause() == 'power-on':\n    while True: time.sleep_ms(50); last = time.ticks_ms()"
    )
    start = time.monotonic()
    board.wait(2, 40)
    assert time.monotonic() - start > 12  # 8 s of the chip's own would have ended it sooner


def test_the_time_is_epoch_seconds_of_1970_once_the_clock_is_set(board: Board) -> None:
    board.run("import ntptime\nntptime.settime()\nsay(now=clock.now(), raw=int(time.time()), zero=time.gmtime(0)[0])")
    (said,) = board.wait(1)
    assert abs(said["now"] - time.time()) < 30
    assert said["zero"] == (2000 if board.chip == "esp32" else 1970)
    assert (said["raw"] < said["now"]) == (board.chip == "esp32")


TLS = (
    "try:\n    asyncio.run(port.open_stream('localhost', 1, 'x', 'ca', 'cert', 'key'))\n"
    "except AgentError as error:\n    say(error=str(error), year=time.gmtime()[0])"
)


@pytest.mark.parametrize("board", ["esp32", "rp2"], indirect=True)
def test_an_unset_clock_is_set_before_tls(board: Board) -> None:
    board.run("say(year=time.gmtime()[0])\n" + TLS)
    before, after = board.wait(2)
    assert before["year"] == (2000 if board.chip == "esp32" else 2021)
    assert after["year"] >= 2026
    assert after["error"] == "ca is missing or too large"


@pytest.mark.parametrize("board", ["esp32", "rp2"], indirect=True)
def test_without_network_the_unset_clock_is_named(board: Board) -> None:
    board.board.wifi(False)
    board.run(TLS)
    (said,) = board.wait(1)
    assert said["error"].startswith("clock is not set, NTP: OSError")


def test_the_clock_survives_a_reset_but_not_the_loss_of_power(tmp_path: Path) -> None:
    board = Board(tmp_path, "esp32")
    board.run(
        "say(year=time.gmtime()[0], cause=port.reset_cause())\n"
        "if time.gmtime()[0] == 2000:\n    import ntptime; ntptime.settime(); port.reset()\nwhile True: time.sleep(1)"
    )
    try:
        board.wait(2)
        board.board.kill()
        said = board.wait(4)
    finally:
        board.board.power_off()
    assert [one["year"] > 2025 for one in said] == [False, True, False, True]


def test_linux_keeps_the_contract_too(tmp_path: Path) -> None:
    members = {"endpoint": "e", "ca": "ca", "thing_name": "t", "certificate": "c", "key": "k"}
    port = LinuxPort(parse({**members, "state_dir": str(tmp_path / "state"), "slots_dir": str(tmp_path / "slots")}))
    (tmp_path / "state").mkdir()
    facts = port.facts()
    assert facts["port"] == "linux"
    assert {"board", "chip", "runtime", "port"} <= set(facts)
    assert port.boot_id() == LinuxPort(None).boot_id()
    memory = port.memory()
    assert memory["free"] > 0 < memory["flash_free"]
    code = "from edgeagent.ports.linux import LinuxPort; p = LinuxPort(None); p.watchdog(9).feed(); p.reset()"
    result = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert result.returncode == 75
