# SPDX-License-Identifier: Apache-2.0
"""The application that a device has from the factory is one of the store, as if an update had brought it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeagent.ota import trial
from edgeagent.ota.slots import Slots
from edgefleet import devices
from edgefleet.artifacts.build import Artifact, build
from tests.portable.ota_support import entries, slot_contents


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    source = tmp_path / "app"
    (source / "lib").mkdir(parents=True)
    (source / "app.py").write_text("import lib.part\n")
    (source / "lib" / "part.py").write_bytes(b"# " + b"x" * 9000)
    (source / "same.txt").write_bytes(b"# " + b"x" * 9000)
    (source / "tool.sh").write_text("#!/bin/sh\n")
    (source / "tool.sh").chmod(0o755)
    return build(source, name="app", version="1.0.0", boards=["*"], runtime="cpython")


@pytest.mark.parametrize("on_board", [True, False])
def test_it_runs_from_the_first_boot(artifact: Artifact, tmp_path: Path, on_board: bool) -> None:
    root = str(tmp_path / "slots")
    devices._install_application(root, artifact, on_board)
    assert slot_contents(root + "/a") == dict(artifact.files())
    assert trial.boot(root) == root + "/a"
    assert trial.status(root)["state"] == "confirmed"
    assert Slots(root).old().artifact == artifact.digest


def test_a_board_gets_each_content_once_and_no_folder(artifact: Artifact, tmp_path: Path) -> None:
    devices._install_application(str(tmp_path / "slots"), artifact, on_board=True)
    assert not (tmp_path / "slots" / "a").exists()
    assert len(list((tmp_path / "slots" / "store").iterdir())) == 3


def test_on_linux_the_slot_is_made_of_links_that_cannot_be_written(artifact: Artifact, tmp_path: Path) -> None:
    root = tmp_path / "slots"
    devices._install_application(str(root), artifact, on_board=False)
    found = {str(path.relative_to(root / "a")) for path in (root / "a").rglob("*") if path.is_file()}
    assert found == {path for path, _ in artifact.files()}
    for path, _, name in entries(str(root / "a")):
        assert os.path.samefile(root / "a" / path, root / "store" / name)
    modes = {path: (root / "a" / path).stat().st_mode & 0o777 for path in found}
    assert modes == {"app.py": 0o444, "lib/part.py": 0o444, "same.txt": 0o444, "tool.sh": 0o555}


def test_where_there_are_no_hard_links_they_are_symbolic(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", refuse)
    root = tmp_path / "slots"
    devices._install_application(str(root), artifact, on_board=False)
    assert (root / "a" / "lib" / "part.py").is_symlink()
    (tmp_path / "slots").rename(tmp_path / "moved")
    assert (tmp_path / "moved/a/lib/part.py").read_bytes() == dict(artifact.files())["lib/part.py"]
