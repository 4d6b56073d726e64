# SPDX-License-Identifier: Apache-2.0
"""Applications that do everything wrong, each put on trial on a virtual board that nobody touches.

A file of apps/ is an application, version 2.0.0. Its docstring says what it does, and after `expects:` a regular
expression for the reason of its rollback, with another state of the trial before it if that is not "rolled_back"
(`confirmed | `). What it imports from `shared` is put in its file. The board is switched on with the version on
trial, as an update leaves it, and has come back when the version before runs again, or the bare agent.
Time is compressed: a watchdog of a second, a trial of two.

`python -m tests.integration.bad_apps [NAME ...]` plays all of them, or those named, and prints a table.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefleet import devices
from edgefleet.artifacts.build import compile_file
from hil.virtual_board import VirtualBoard, interpreter
from tests.device.bench import BARE, lay_out
from tests.support import write_files

APPS = Path(__file__).parent / "apps"
# What is no program text: name -> (what it is, expression for the reason, file, bytes).
RAW = {
    "syntax_error": ("Is no Python.", "SyntaxError", "app.py", b"def main(:\n"),
    "torn_bytecode": ("Is cut short.", "WDT_RESET", "app.mpy", compile_file(APPS / "busy_loop.py", "app.py")[:40]),
    "foreign_bytecode": ("Is compiled for another MicroPython.", "incompatible", "app.mpy", b"M\x05\x00\x1f\x00\x00"),
    "garbage_bytecode": ("Is random.", "ValueError|interrupted", "app.mpy", hashlib.sha256(b"seed").digest() * 20),
    "no_application": ("Has files, but no application.", "app", "readme.txt", b"nothing to run"),
}
NAMES = sorted([path.stem for path in APPS.glob("*.py")] + list(RAW))
MAX_BOOTS = 3  # of the bad version, until the board has come back
TRIAL_S = 2
FLASH_KIB = 512
WITHIN_S = 60.0  # for a loaded machine; a case takes some seconds
ARTIFACT = "22" * 32

BAD = 'print("\\nbad runs")\n'  # comes first in every application here
OLD = """print("\\ngood runs")
from edgeagent import Agent
agent = Agent.from_file()
def main():
    agent.run()
"""
READ = """import json, sys, vfs
from flash import Flash
vfs.mount(vfs.VfsLfs2(Flash(sys.argv[1])), "/flash")
found = {}
for name in ("state.json", "state.bak"):
    try:
        with open("/flash/slots/" + name, "rb") as f:
            found = found or json.loads(f.read()[8:])
    except OSError:
        pass
print(json.dumps(found))
"""


@dataclass
class Outcome:
    """back: what runs in the end, "1.0.0" or "bare". boots: of the bad version. state, reason: of its trial."""

    name: str
    back: str
    boots: int
    seconds: float
    state: str = ""
    reason: str = ""
    problem: str = ""  # why this is no recovery


def about(name: str) -> tuple[str, str, str]:
    """(what an application does, state of its trial in the end, expression for the reason)."""
    if name in RAW:
        return RAW[name][0], "rolled_back", RAW[name][1]
    found = re.search(r'"""(.*?)\s*expects:\s*(.*?)\s*"""', (APPS / f"{name}.py").read_text(), re.S)
    if found is None:
        raise ValueError(f"{name}: has no docstring with expects:")
    state, _, wanted = found[2].rpartition(" | ")
    return " ".join(found[1].split()), state or "rolled_back", wanted


def files_of(name: str) -> dict[str, str | bytes]:
    """An application as it is installed, {path: contents}: one file, with what it imports from `shared` in it."""
    if name in RAW:
        return {RAW[name][2]: RAW[name][3]}
    source = (APPS / f"{name}.py").read_text()
    imports = re.compile(r"^from shared\.(\w+) import .*$", re.M)
    return {"app.py": BAD + imports.sub(lambda found: (APPS / "shared" / f"{found[1]}.py").read_text(), source)}


def prepare(files: Path, name: str) -> None:
    """The file system of a board with version 1.0.0 in slot a, and `name` on trial in slot b."""
    lay_out(files)
    (files / "state").mkdir()
    root = files / "slots"
    write_files(root / "a", {"app.py": OLD})
    slots = devices.FactorySlots(str(root))
    slots.prepare(ARTIFACT)
    write_files(root / "b", files_of(name))
    slots.complete(ARTIFACT, "2.0.0", 1)
    slots.activate("2.0.0", "job/1", TRIAL_S, "1.0.0")
    # As safety.keep() does; the path is that on the board.
    kept = b"job/1\n/agent.json\n" + (files / "agent.json").read_bytes()
    (root / "agent.json").write_bytes(hashlib.sha256(kept).digest()[:8] + kept)


def status(board: VirtualBoard) -> dict[str, Any]:
    """The state of the trial, read from the flash by MicroPython's own littlefs; {} if there is none."""
    result = subprocess.run(
        [interpreter(), "-X", "heapsize=2m", "-c", READ, str(board.folder / "flash.bin")],
        env={"MICROPYPATH": f"{board.folder / 'firmware'}:.frozen"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def back(console: str) -> str:
    """What runs since the last reset and is well: "1.0.0", "bare", or ""."""
    boot = console[console.rfind("virtual board, reset cause") :]
    if BARE not in boot or "bad runs" in boot:
        return ""
    return "1.0.0" if "good runs" in boot else "bare"


def play(name: str, folder: Path) -> Outcome:
    """Put one on trial in `folder`, an empty one. Does not raise for what the application does to the board."""
    prepare(folder / "files", name)
    board = VirtualBoard(folder / "board", heap="128k", flash_kib=FLASH_KIB)
    board.flash(folder / "files")
    start = time.monotonic()
    board.power_on()
    try:
        while not back(board.console) and time.monotonic() - start < WITHIN_S:
            time.sleep(0.02)
    finally:
        board.power_off()
    console = board.console
    outcome = Outcome(name, back(console), len(board.resets) - 1, time.monotonic() - start)
    known = status(board)
    outcome.state, outcome.reason = str(known.get("state")), str(known.get("reason"))
    state, wanted = about(name)[1:]
    if not outcome.back:
        outcome.problem = f"did not come back: {console[-500:]}"
    elif outcome.state != state:
        outcome.problem = f"the trial is {outcome.state}"
    elif not re.search(wanted, outcome.reason):
        outcome.problem = f"the reason says nothing of {wanted}"
    elif outcome.boots > MAX_BOOTS:
        outcome.problem = f"needed {outcome.boots} boots"
    return outcome
