# SPDX-License-Identifier: Apache-2.0
"""Firmware of an ESP32 with two app partitions, updated by a job on a real site; the bootloader is the model's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from hil import esp32_flash
from tests.integration.rig import Rig


class Esp32(Rig):
    kind = "ESP32_GENERIC"
    chip = "esp32"
    firmware = esp32_flash.app_image("v1.0.0", "micropython", 20_000)

    def chip_now(self) -> esp32_flash.Chip:
        """The flash as it is."""
        data = bytearray((self.board.folder / "partitions.bin").read_bytes())
        return esp32_flash.Chip(esp32_flash.Memory(data))

    def update(self, job: str, image: bytes) -> tuple[str, dict[str, str]]:
        """Build, sign and publish an image as people do; the outcome of its job."""
        path, out = self.folder / f"{job}.bin", self.folder / job
        path.write_bytes(image)
        run = self.fleet.run
        run("artifact", "build", "--type", "firmware", str(path), "--board", self.kind, "--out", str(out))
        run("artifact", "sign", str(out), "--key", str(self.key))
        document = json.loads(run("artifact", "publish", str(out), "--json"))["document"]
        self.create_job(job, document)
        return self.outcome(job, 150)


@pytest.fixture
def rig(fleet: FleetManager, judge: Judge, folder: Path, request: pytest.FixtureRequest) -> Iterator[Esp32]:
    one = Esp32(fleet, judge, folder, f"esp-{request.node.name[-20:].strip('_')}", heap="160k")
    one.board.power_on()
    one.wait_running("1.0.0")
    yield one
    one.board.power_off()


def test_new_firmware_is_proved_and_kept(rig: Esp32) -> None:
    image = esp32_flash.app_image("v2.0.0", "micropython", 60_000)
    status, details = rig.update("good", image)
    assert (status, details.get("version"), details.get("previous")) == ("SUCCEEDED", "v2.0.0", "v1.0.0"), details
    rig.board.power_off()
    chip = rig.chip_now()
    assert chip.selected()[0] == "ota_1"
    assert [one.state for one in chip.records()] == [esp32_flash.VALID, esp32_flash.VALID]
    assert chip.read(chip.selected()[3], len(image)) == image


def test_firmware_that_does_not_start_leaves_the_old_one(rig: Esp32) -> None:
    status, details = rig.update("broken", esp32_flash.app_image("v2.0.0", "dead", 20_000))
    assert status == "FAILED"
    assert details["reason"].startswith("rolled-back: interrupted: rolled back by the bootloader (watchdog)"), details
    rig.board.power_off()
    chip = rig.chip_now()
    assert chip.selected()[0] == "ota_0"
    assert [one.state for one in chip.records()] == [esp32_flash.VALID, esp32_flash.ABORTED]


def test_firmware_of_another_chip_is_refused_before_anything_is_erased(rig: Esp32) -> None:
    status, details = rig.update("other", esp32_flash.app_image("v2.0.0", "micropython", 20_000, "esp32s3"))
    assert (status, details["reason"]) == ("FAILED", "image: not an app image for chip 0")
    rig.board.power_off()
    assert not rig.chip_now().read(0x190000, 0x6000).strip(b"\xff")
