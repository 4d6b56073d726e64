# SPDX-License-Identifier: Apache-2.0
"""The parts of updates can be left off a board: an update needs those of its own way, and no other."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from tests.integration.rig import Rig

# Of an application update over MQTT, signed with P-256.
NEEDED = {
    *("admit", "ecdsa", "folder", "gate", "guard", "handover", "index", "kinds", "manifest", "safety", "slots"),
    *("store", "transfer", "trial", "verify", "view", "writer"),
}
MOST = 24 * 1024  # bytes of .mpy


class Sparse(Rig):
    """A board with these files of ota/ only."""

    def _files(self, heap: str) -> Path:
        files = super()._files(heap)
        self.size = (files / "lib/edgeagent/p256.mpy").stat().st_size
        for path in (files / "lib/edgeagent/ota").iterdir():
            if path.stem in NEEDED:
                self.size += path.stat().st_size
            else:
                path.unlink()
        return files


@pytest.fixture(scope="module")
def rig(fleet: FleetManager, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sparse]:
    rig = Sparse(fleet, judge, tmp_path_factory.mktemp("rig"), "piecewise-0001", heap="160k")
    with rig.switched_on():
        yield rig


def test_an_update_over_mqtt_needs_24_kib_of_ota_files(rig: Sparse) -> None:
    assert rig.size <= MOST
    rig.add_release("4.0.0", secrets.token_bytes(50_000))
    rig.create_job("sparse", rig.publish("4.0.0"))
    assert rig.outcome("sparse")[0] == "SUCCEEDED"
    rig.wait_running("4.0.0")


def test_a_part_that_was_left_off_is_named_by_the_job_that_wants_it(rig: Sparse) -> None:
    rig.add_release("5.0.0", b"")
    document = rig.publish("5.0.0")
    document["urls"] = dict.fromkeys(document["artifact"], "https://localhost/none")
    rig.create_job("missing", document)
    status, details = rig.outcome("missing")
    assert status == "FAILED"
    assert "edgeagent.ota.ranges" in details["reason"]
