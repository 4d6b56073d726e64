# SPDX-License-Identifier: Apache-2.0
"""The ESP32 board folder: what its firmware freezes is what package.json allows, and its scripts compile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgefleet.artifacts.build import compile_file
from tests.support import ROOT

BOARD = ROOT / "boards" / "ESP32_GENERIC"


def test_frozen_files_are_those_of_package_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BOARD)  # as MicroPython's manifest tool does
    frozen: dict[str, Any] = {}
    included: list[str] = []
    script = compile((BOARD / "manifest.py").read_text(), "manifest.py", "exec")
    exec(script, {"include": included.append, "package": lambda name, **options: frozen.update({name: options})})
    listed = [source for _, source in json.loads((ROOT / "edgeagent" / "package.json").read_text())["urls"]]
    assert included == ["$(PORT_DIR)/boards/manifest.py"]
    assert list(frozen) == ["edgeagent"]
    assert frozen["edgeagent"]["files"] == listed
    base = Path(frozen["edgeagent"]["base_path"]).resolve()
    assert all((base / "edgeagent" / path).is_file() for path in listed)


@pytest.mark.parametrize(
    "path",
    ["common/boot.py", "common/main.py", "common/stage0.py", "ESP32_GENERIC/network.example.py"],
    ids=lambda path: path,
)
def test_scripts_compile_for_micropython(path: str) -> None:
    assert compile_file(ROOT / "boards" / path, path)
