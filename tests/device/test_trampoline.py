# SPDX-License-Identifier: Apache-2.0
"""boot.py and main.py on a virtual board: whatever the application does, the board comes back.

The applications here are a few lines; `edgeagent.ota` on the board is the real one, the agent itself is not needed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeagent.ota import trial
from edgeagent.ota.slots import Slots
from edgefleet.artifacts.build import compile_file
from hil.virtual_board import HARD_RESET, PWRON_RESET, WDT_RESET, VirtualBoard
from tests.support import ROOT

PARTS = ("__init__", "clock", "compat", "errors", "limits", "log")
OTA = ("__init__", "launch", "safety", "trial")
GOOD = """
import sys
def main():
    print("app", __file__ if "__file__" in globals() else "", "VERSION")
    while True:
        pass
"""
BARE = """
class Agent:
    @staticmethod
    def from_file(path):
        return Agent()
    def run(self):
        print("bare agent", "RUNS")
        while True:
            pass
"""


def good(version: str) -> str:
    return GOOD.replace("VERSION", f"runs {version}")


class Bench:
    """The file system of a board that is about to be switched on."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.root = self.files / "slots"
        (self.files / "lib" / "edgeagent" / "ota").mkdir(parents=True)
        self.root.mkdir()
        for script in ("boot.py", "main.py"):
            text = (ROOT / "boards" / "common" / script).read_text()
            # Time is not the subject: restarts follow at once, and a hang is noticed within a second.
            text = text.replace("WATCHDOG_MS = 120000", "WATCHDOG_MS = 1000").replace("DAMAGED_S = 30", "DAMAGED_S = 0")
            text = text.replace("time.sleep(1)", "time.sleep(0)")
            (self.files / script).write_text(text)
        for names, place in ((PARTS, "edgeagent"), (OTA, "edgeagent/ota")):
            for name in names:
                compiled = compile_file(ROOT / place / f"{name}.py", f"{place}/{name}.py")
                (self.files / "lib" / place / f"{name}.mpy").write_bytes(compiled)
        (self.files / "lib" / "edgeagent" / "agent.py").write_text(BARE)
        self.board = VirtualBoard(folder / "board", heap="128k")

    def slot(self, name: str, source: str) -> None:
        (self.root / name).mkdir(exist_ok=True)
        (self.root / name / "app.py").write_text(source)

    def on_trial(self, source: str) -> None:
        """Slot a runs 1.0.0, slot b holds 2.0.0 as a trial."""
        self.slot("a", good("1.0.0"))
        slots = Slots(str(self.root))
        slots.prepare("11" * 32)
        self.slot("b", source)
        slots.complete("11" * 32, "2.0.0", 0)
        slots.activate("2.0.0", "job/1", 60, "1.0.0")

    def start(self) -> VirtualBoard:
        self.board.flash(self.files)
        self.board.power_on()
        return self.board

    def wait(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{self.board.resets} {self.board.console[-1500:]}"
            time.sleep(0.02)

    def wait_for(self, text: str) -> None:
        self.wait(lambda: text in self.board.console)


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
    bench.wait_for("bare agent RUNS")
    assert bench.board.console.count("crash") == 5


def test_without_an_application_the_bare_agent_runs(bench: Bench) -> None:
    bench.start()
    bench.wait_for("bare agent RUNS")


def test_damaged_state_boots_the_older_slot(bench: Bench) -> None:
    bench.on_trial(good("2.0.0"))
    trial.confirm(str(bench.root))
    for name in ("state.json", "state.bak"):
        (bench.root / name).write_bytes(b"\x00garbage")
    assert not trial.status(str(bench.root))["n"]
    bench.start()
    bench.wait_for("runs 1.0.0")


def test_damaged_library_restarts_and_never_ends_in_the_repl(bench: Bench) -> None:
    shutil.rmtree(bench.files / "lib" / "edgeagent" / "ota")
    bench.slot("a", good("1.0.0"))
    bench.start()
    bench.wait(lambda: len(bench.board.resets) > 2)
    assert bench.board.resets[1] == HARD_RESET


def test_application_named_in_the_configuration_runs(bench: Bench) -> None:
    bench.slot("a", "")
    (bench.root / "a" / "pump.py").write_text(good("pump"))
    (bench.files / "agent.json").write_text('{"application": "pump"}')
    bench.start()
    bench.wait_for("runs pump")
