# SPDX-License-Identifier: Apache-2.0
"""boot.py and main.py on a virtual board: whatever the application does, the board comes back.

The applications here are a few lines; the agent on the board is the real one, as it is shipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeagent.ota import trial
from hil.virtual_board import HARD_RESET, PWRON_RESET, WDT_RESET
from tests.device.bench import BARE, Bench, good


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    one = Bench(tmp_path)
    yield one
    one.board.power_off()


def test_the_active_slot_runs(bench: Bench) -> None:
    bench.slot("a", good("1.0.0"))
    bench.start()
    bench.wait_for("runs 1.0.0")
    assert bench.board.resets[0] == PWRON_RESET


def test_a_slot_with_an_index_shows_its_files_and_no_others(bench: Bench) -> None:
    source = """
import os
from parts.one import ONE
folder = __file__.rpartition("/")[0]
def main():
    found = sorted(os.listdir(folder)), ONE, open(folder + "/data.txt").read()
    try:
        open(folder + "/data.txt", "w")
    except OSError as error:
        print("sees", found, error.errno)
    while True:
        pass
"""
    bench.index("a", {"app.py": source, "parts/one.py": "ONE = 1\n", "data.txt": "data"})
    bench.slot("a", "print('stale')\n")
    bench.start()
    bench.wait_for("sees (['app.py', 'data.txt', 'parts'], 1, 'data') 30")
    assert "stale" not in bench.board.console


@pytest.mark.parametrize("other", ["index", "folder"])
def test_a_damaged_index_boots_the_other_slot(bench: Bench, other: str) -> None:
    if other == "index":
        bench.index("a", {"app.py": good("1.0.0")})
    else:
        bench.slot("a", good("1.0.0"))
    bench.index("b", {"app.py": good("2.0.0")})
    trial.save(str(bench.root), {**trial.status(str(bench.root)), "active": "b", "state": "confirmed"})
    with (bench.root / "b.idx").open("r+b") as f:
        f.seek(20)
        f.write(b"!")
    bench.start()
    bench.wait_for("runs 1.0.0")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import fuel_injection\n", "fuel_injection"),
        ("def main():\n    return {}['gone']\n", "KeyError: gone (app.py:2)"),
        ("def main(:\n", "SyntaxError"),
        ("x = bytearray(10000000)\n", "MemoryError"),
        ("keep = []\ndef main():\n    while True: keep.append(bytearray(300))\n", "MemoryError"),
        ("def f():\n    f()\ndef main():\n    f()\n", "recursion"),
        ("def main():\n    pass\n", "the application ended by itself"),
    ],
    ids=["import", "exception", "syntax", "memory", "heap full", "recursion", "return"],
)
def test_bad_version_on_trial_goes_back_at_once_and_says_why(bench: Bench, source: str, reason: str) -> None:
    bench.on_trial(source + "\nimport sys\n")
    show = "from edgeagent.ota import trial\nprint('old runs,', trial.status('/slots'))\n"
    bench.slot("a", show + "print('old done')\nwhile True: pass\n")
    bench.start()
    bench.wait_for("old done")
    assert bench.board.resets[:2] == [PWRON_RESET, HARD_RESET]
    line = next(line for line in bench.board.console.splitlines() if line.startswith("old runs,"))
    assert "rolled_back" in line
    assert reason in line


def test_version_on_trial_that_hangs_goes_back_after_three_watchdog_resets(bench: Bench) -> None:
    bench.on_trial(good("2.0.0"))
    bench.start()
    bench.wait_for("runs 1.0.0")
    assert bench.board.console.count("runs 2.0.0") == 3
    assert bench.board.resets[:4] == [PWRON_RESET, WDT_RESET, WDT_RESET, WDT_RESET]


def test_version_on_trial_that_resets_in_a_loop_goes_back(bench: Bench) -> None:
    bench.on_trial("import machine\nprint('again')\nmachine.reset()\n")
    bench.start()
    bench.wait_for("runs 1.0.0")
    assert bench.board.console.count("again") == 3


def test_confirmed_version_that_keeps_crashing_makes_room_for_the_bare_agent(bench: Bench) -> None:
    bench.slot("a", "print('crash')\n1 / 0\n")
    bench.start()
    bench.wait_for(BARE)
    assert bench.board.console.count("crash") == 3


def test_without_an_application_the_bare_agent_runs(bench: Bench) -> None:
    bench.start()
    bench.wait_for(BARE)


def test_damaged_state_boots_the_older_slot(bench: Bench) -> None:
    bench.on_trial(good("2.0.0"))
    trial.confirm(str(bench.root))
    for name in ("state.json", "state.bak"):
        (bench.root / name).write_bytes(b"\x00garbage")
    assert not trial.status(str(bench.root))["n"]
    bench.start()
    bench.wait_for("runs 1.0.0")


@pytest.mark.parametrize("lost", ["ota/safety.mpy", "ota/trial.mpy", "__init__.mpy", "ota", ""])
def test_damaged_library_restarts_and_never_ends_in_the_repl(bench: Bench, lost: str) -> None:
    path = bench.files / "lib" / "edgeagent" / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    bench.slot("a", good("1.0.0"))
    bench.start()
    bench.wait(lambda: len(bench.board.resets) > 2)
    assert bench.board.resets[1] == HARD_RESET


@pytest.mark.parametrize("torn", ["ota/trial.mpy", "__init__.mpy"])
def test_library_cut_short_restarts_by_the_watchdog(bench: Bench, torn: str) -> None:
    path = bench.files / "lib" / "edgeagent" / torn
    path.write_bytes(path.read_bytes()[:100])
    bench.slot("a", good("1.0.0"))
    bench.start()
    bench.wait(lambda: len(bench.board.resets) > 2)
    assert bench.board.resets[1] == WDT_RESET  # MicroPython reads past the end of the file for ever


def test_application_named_in_the_configuration_runs(bench: Bench) -> None:
    bench.slot("a", "")
    (bench.root / "a" / "pump.py").write_text(good("pump"))
    bench.configure(application="pump")
    bench.start()
    bench.wait_for("runs pump")
