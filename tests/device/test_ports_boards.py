# SPDX-License-Identifier: Apache-2.0
"""MicroPythonPort and Esp32Port on MicroPython, with stand-ins for what only a board has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import MICROPYTHON, ROOT

MACHINE = """
PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
cause = 3
def reset():
    print("reset")
    raise SystemExit(64)
def reset_cause():
    return cause
def unique_id():
    return bytes((1, 2, 255))
class WDT:
    def __init__(self, id=0, timeout=5000):
        print("wdt", timeout)
    def feed(self):
        print("fed")
"""
ESP32 = """
HEAP_DATA = 4
def idf_heap_info(kind):
    return [(100, 40, 30, 20), (200, 90, 80, 70)]
class Partition:
    def find(type, subtype):
        return []
"""
NTPTIME = """
def settime():
    print("ntp")
    raise OSError(110)
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A folder of stand-in modules."""
    for name, text in (("machine", MACHINE), ("esp32", ESP32), ("ntptime", NTPTIME)):
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


HEAD = """
import asyncio, sys
from edgeagent.errors import AgentError
class Config:
    state_dir = "state"
    slots_dir = None
"""


def play(folder: Path, code: str) -> tuple[int, str]:
    """(exit status, output) of MicroPython running `code`."""
    result = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=128k", "-c", HEAD + code],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=folder,
        env={**os.environ, "MICROPYPATH": f"{folder}:{ROOT}:.frozen"},
    )
    return result.returncode, result.stdout + result.stderr


UNIX = "from edgeagent.ports import detect\nport = detect(Config)\n"
ON_ESP32 = "from edgeagent.ports.esp32 import Esp32Port\nport = Esp32Port(Config)\n"


def test_a_virtual_board_is_one_with_a_machine_that_resets(board: Path) -> None:
    assert play(board, UNIX + "f = port.facts(); print(f['board'], f['port'], f['runtime'][:12], port.slots_dir)") == (
        0,
        "UNIX_VIRTUAL unix micropython  /slots\n",
    )


def test_a_plain_process_is_named_so_and_knows_no_reset_cause(tmp_path: Path) -> None:
    assert play(tmp_path, UNIX + "print(port.facts()['board'], port.reset_cause())") == (0, "UNIX unknown\n")


@pytest.mark.parametrize("port", [UNIX, ON_ESP32], ids=["unix", "esp32"])
def test_the_boot_counter_rises_once_a_process_and_survives(board: Path, port: str) -> None:
    ask = port + "print(port.boot_id(), type(port)(Config).boot_id())"
    assert play(board, ask) == (0, "boot-1 boot-1\n")
    assert play(board, ask) == (0, "boot-2 boot-2\n")
    (board / "state" / "boots").write_text("rubbish")
    assert play(board, ask) == (0, "boot-1 boot-1\n")


def test_boots_differ_even_if_nothing_can_be_written(board: Path) -> None:
    (board / "state").write_text("a file where the folder should be")
    first, second = play(board, UNIX + "print(port.boot_id())"), play(board, UNIX + "print(port.boot_id())")
    assert first[0] == second[0] == 0
    assert first[1] != second[1]


@pytest.mark.parametrize("port", [UNIX, ON_ESP32], ids=["unix", "esp32"])
def test_the_reset_cause_is_a_word(board: Path, port: str) -> None:
    ask = port + "import machine\nfor machine.cause in range(1, 7): print(port.reset_cause())"
    assert play(board, ask)[1].split() == ["power-on", "hard", "watchdog", "deep-sleep", "soft", "unknown"]


@pytest.mark.parametrize("port", [UNIX, ON_ESP32], ids=["unix", "esp32"])
def test_reset_and_watchdog_are_the_machines(board: Path, port: str) -> None:
    assert play(board, port + "port.watchdog(8).feed(); port.reset()") == (64, "wdt 8000\nfed\nreset\n")


def test_a_plain_process_restarts_by_status_75_and_has_no_watchdog(tmp_path: Path) -> None:
    assert play(tmp_path, UNIX + "port.watchdog(8).feed(); port.reset()") == (75, "")


def test_reset_ends_the_process_from_within_a_task(tmp_path: Path) -> None:
    code = (
        "async def task():\n    port.reset()\n"
        "async def main():\n    t = asyncio.create_task(task())\n    await asyncio.sleep(5)\n"
        "asyncio.run(main())"
    )
    assert play(tmp_path, UNIX + code) == (75, "")


@pytest.mark.parametrize("port", [UNIX, ON_ESP32], ids=["unix", "esp32"])
def test_memory_is_in_bytes(board: Path, port: str) -> None:
    code = "port.boot_id(); m = port.memory(); print(all(m[k] > 1000 for k in ('free', 'used', 'flash_free')))"
    assert play(board, port + code) == (0, "True\n")


def test_the_esp32_tells_the_heap_that_tls_needs(board: Path) -> None:
    assert play(board, ON_ESP32 + "m = port.memory(); print(m['idf_free'], m['idf_largest'])") == (0, "130 80\n")


@pytest.mark.parametrize("port", [UNIX, ON_ESP32], ids=["unix", "esp32"])
def test_the_serial_is_the_machines_id_and_a_plain_process_has_none(
    board: Path, port: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert play(board, port + "print(port.facts()['serial'])") == (0, "0102ff\n")
    assert play(tmp_path_factory.mktemp("plain"), UNIX + "print('serial' in port.facts())") == (0, "False\n")


def test_the_esp32_sets_an_unset_clock_before_tls(board: Path) -> None:
    code = (
        "import edgeagent.ports.micropython as e\ne.clock.now = lambda: 946684800\n"
        "try:\n    asyncio.run(port.open_stream('localhost', 1, 'x', 'ca', 'cert', 'key'))\n"
        "except AgentError as error:\n    print(error)"
    )
    status, output = play(board, ON_ESP32 + code)
    assert status == 0
    assert output.startswith("ntp\nclock is not set, NTP: OSError")


def test_an_empty_credential_is_named(board: Path) -> None:
    for name in ("ca", "cert", "key"):
        (board / name).write_bytes(b"")
    code = (
        "try:\n    asyncio.run(port.open_stream('localhost', 1, 'x', 'ca', 'cert', 'key'))\n"
        "except AgentError as error:\n    print(type(error).__name__, error)"
    )
    status, output = play(board, UNIX + code)
    assert (status, output) == (
        0,
        "TransportError ca is missing or too large\n",
    )
