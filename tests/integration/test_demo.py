# SPDX-License-Identifier: Apache-2.0
"""`make demo`, shortened to fewer registrations, in the smallest heap that is promised."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support import ROOT


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that mention the demo's folder, or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            working = os.readlink(entry / "cwd")
        except OSError:
            continue
        if str(folder) in command or working.startswith(str(folder)):
            found.append(command)
    return found


def test_the_whole_demo_in_a_128k_heap(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    result = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--folder", str(folder), "--devices", "60", "--heap", "128k"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    last = result.stdout.rstrip().splitlines()[-1]
    facts = json.loads(last.removeprefix("DEMO "))
    assert facts["devices_registered"] == 60
    assert facts["lines_rejected"] == 5
    assert facts["boards"] == 3
    assert facts["provisioned"] == 4
    assert facts["query_matches"] == 3
    assert facts["rolled_back"] == 4
    assert facts["jobs"]["diagnostics"] == {"SUCCEEDED": 3}
    assert facts["jobs"]["update-demo-boards"] == {"SUCCEEDED": 3}
    assert facts["jobs"]["bad-update-demo-boards"] == {"FAILED": 3}
    assert not left_behind(folder)


def test_an_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--folder", str(folder), "--devices", "20"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.lstrip().startswith("5."):
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest.rstrip().splitlines()[-1].startswith("DEMO {")
    deadline = time.monotonic() + 10
    while left_behind(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_behind(folder)
