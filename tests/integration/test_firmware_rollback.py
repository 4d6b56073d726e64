# SPDX-License-Identifier: Apache-2.0
"""The job operation rollback of an ESP32's firmware, on a real site; the bootloader is the model's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from hil import esp32_tables as esp
from hil.esp32_image import app_image
from tests.integration.test_firmware import Esp32

OLD, NEW = Esp32.firmware, app_image("v2.0.0", "micropython", 60_000)
DOCUMENT = {"operation": "rollback", "kind": "firmware"}


@pytest.fixture
def rig(fleet: FleetManager, judge: Judge, folder: Path, request: pytest.FixtureRequest) -> Iterator[Esp32]:
    """An ESP32 that was updated to v2.0.0."""
    one = Esp32(fleet, judge, folder, f"esp-{request.node.name[-20:].strip('_')}", heap="160k")
    with one.switched_on():
        assert one.update(f"{one.thing}-update", NEW)[0] == "SUCCEEDED"
        yield one


def back(rig: Esp32, job: str, **members: str) -> tuple[str, dict[str, str]]:
    rig.create_job(f"{rig.thing}-{job}", {**DOCUMENT, **members})
    return rig.outcome(f"{rig.thing}-{job}", 150)


def test_the_firmware_before_is_proved_and_kept_and_so_is_the_one_that_was_left(rig: Esp32) -> None:
    assert back(rig, "back", version="v1.0.0") == ("SUCCEEDED", {"version": "v1.0.0", "previous": "v2.0.0"})
    assert back(rig, "forth", version="v2.0.0") == ("SUCCEEDED", {"version": "v2.0.0", "previous": "v1.0.0"})
    rig.board.power_off()
    chip = rig.chip_now()
    assert chip.selected()[0] == "ota_1"
    assert [one.state for one in chip.records()] == [esp.VALID, esp.VALID]
    for entry, image in zip(chip.slots(), (OLD, NEW), strict=True):
        assert chip.read(entry[3], len(image)) == image


def test_a_partition_that_is_not_what_it_was_is_left_alone(rig: Esp32) -> None:
    rig.board.power_off()
    path = rig.board.folder / "partitions.bin"
    data = bytearray(path.read_bytes())
    data[rig.chip_now().slots()[0][3] + len(OLD) - 1] ^= 1
    path.write_bytes(data)
    rig.board.power_on()
    rig.wait_running("1.0.0")
    assert back(rig, "back") == ("FAILED", {"reason": "slot: nothing is kept"})
    rig.board.power_off()
    assert rig.chip_now().selected()[0] == "ota_1"
