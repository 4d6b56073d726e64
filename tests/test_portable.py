# SPDX-License-Identifier: Apache-2.0
"""Runs every module of tests/portable on MicroPython; pytest itself runs the same files on CPython."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import MICROPYTHON, ROOT

MODULES = sorted(path.stem for path in (ROOT / "tests" / "portable").glob("test_*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_portable_module_on_micropython(module: str, tmp_path: Path) -> None:
    path = ":".join(str(ROOT / part) for part in ("tests/micropython", "tests/portable", ""))
    result = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=2m", str(ROOT / "tests/micropython/run.py"), module],
        cwd=tmp_path,
        env={**os.environ, "MICROPYPATH": f"{path}:.frozen"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
