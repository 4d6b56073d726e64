# SPDX-License-Identifier: Apache-2.0
"""A virtual board on the bench: the agent and the boot scripts as they are shipped, under any application.

Time is compressed, for it is not the subject: restarts follow at once, and a hang is noticed within a second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from edgefleet import devices
from hil.virtual_board import VirtualBoard
from tests.portable.ota_support import fill
from tests.support import ROOT, write_files

COMPRESSED = {
    "WATCHDOG_MS = 120000": "WATCHDOG_MS = 1000",
    "DAMAGED_S = 30": "DAMAGED_S = 0",
    "time.sleep(1)": "time.sleep(0)",
}
CONFIG = {
    "endpoint": "127.0.0.1",
    "port": 9,
    "thing_name": "pump",
    **{name: f"/certs/{name}.der" for name in ("ca", "certificate", "key")},
}
BARE = "ca.der is missing"  # the agent runs, and got as far as its credentials, which are not there
GOOD = """
import sys
def main():
    print("app", __file__ if "__file__" in globals() else "", "VERSION")
    while True:
        pass
"""


def good(version: str) -> str:
    return GOOD.replace("VERSION", f"runs {version}")


def lay_out(files: Path) -> None:
    """A board's file system without an application."""
    scripts = {name: (ROOT / "boards" / "common" / name).read_text() for name in devices.BOARD_SCRIPTS}
    for old, new in COMPRESSED.items():
        assert scripts["stage0.py"].count(old) == 1, old
        scripts["stage0.py"] = scripts["stage0.py"].replace(old, new)
    write_files(files, scripts)
    write_files(files / "lib", devices.agent_bytecode("UNIX_VIRTUAL"))
    write_files(files, {"agent.json": json.dumps(CONFIG)})


class Bench:
    """The file system of a board that is about to be switched on."""

    def __init__(self, folder: Path, chip: str = "unix") -> None:
        self.files = folder / "files"
        self.root = self.files / "slots"
        self.root.mkdir(parents=True)
        lay_out(self.files)
        self.board = VirtualBoard(folder / "board", heap="128k", chip=chip)

    def configure(self, **members: str) -> None:
        (self.files / "agent.json").write_text(json.dumps({**CONFIG, **members}))

    def slot(self, name: str, source: str) -> None:
        (self.root / name).mkdir(exist_ok=True)
        (self.root / name / "app.py").write_text(source)

    def index(self, name: str, files: dict[str, str]) -> None:
        """Fill a slot as updates do."""
        fill(str(self.root / name), {path: text.encode() for path, text in files.items()})  # type: ignore[no-untyped-call]

    def on_trial(self, source: str) -> None:
        """Slot a runs 1.0.0, slot b holds 2.0.0 as a trial."""
        self.slot("a", good("1.0.0"))
        slots = devices.FactorySlots(str(self.root))
        slots.prepare("11" * 32)
        self.index("b", {"app.py": source})
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
