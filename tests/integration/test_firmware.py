# SPDX-License-Identifier: Apache-2.0
"""Firmware of an ESP32 with two app partitions, updated by a job on a real site; the bootloader is the model's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from hil import esp32_tables as esp
from hil.esp32_flash import Chip, Memory
from hil.esp32_image import app_image
from tests.integration.link import SESSION_BYTES, Link
from tests.integration.rig import Rig


class Esp32(Rig):
    kind = "ESP32_GENERIC"
    chip = "esp32"
    firmware = app_image("v1.0.0", "micropython", 20_000)

    def chip_now(self) -> Chip:
        """The flash as it is."""
        data = bytearray((self.board.folder / "partitions.bin").read_bytes())
        return Chip(Memory(data))

    def update(self, job: str, image: bytes, *options: str) -> tuple[str, dict[str, str]]:
        """Build, sign and publish an image as people do; the outcome of its job. options: of publish."""
        path, out = self.folder / f"{job}.bin", self.folder / job
        path.write_bytes(image)
        run = self.fleet.run
        run("artifact", "build", "--type", "firmware", str(path), "--board", self.kind, "--out", str(out))
        run("artifact", "sign", str(out), "--key", str(self.key))
        document = json.loads(run("artifact", "publish", str(out), *options, "--json"))["document"]
        self.create_job(job, document)
        return self.outcome(job, 150)


@pytest.fixture
def rig(fleet: FleetManager, judge: Judge, link: Link, folder: Path, request: pytest.FixtureRequest) -> Iterator[Esp32]:
    name = f"esp-{request.node.name[-20:].strip('_')}"
    one = Esp32(link.through(fleet), judge, folder, name, heap="160k")
    with one.switched_on():
        yield one


def test_new_firmware_is_proved_and_kept(rig: Esp32) -> None:
    image = app_image("v2.0.0", "micropython", 60_000)
    status, details = rig.update("good", image)
    assert (status, details.get("version"), details.get("previous")) == ("SUCCEEDED", "v2.0.0", "v1.0.0"), details
    rig.board.power_off()
    chip = rig.chip_now()
    assert chip.selected()[0] == "ota_1"
    assert [one.state for one in chip.records()] == [esp.VALID, esp.VALID]
    assert chip.read(chip.selected()[3], len(image)) == image


def test_the_next_firmware_comes_as_a_patch_to_the_one_that_runs(rig: Esp32, link: Link) -> None:
    images = [app_image(version, "micropython", 150_000, fill=b"edgeagent") for version in ("v2.0.0", "v3.0.0")]
    status, details = rig.update("whole", images[0])
    assert (status, details.get("version")) == ("SUCCEEDED", "v2.0.0"), details
    whole = link.down
    assert whole > len(images[0])
    status, details = rig.update("patch", images[1], "--delta-from", str(rig.folder / "whole"))
    assert (status, details) == ("SUCCEEDED", {"version": "v3.0.0", "previous": "v2.0.0"})
    assert link.down - whole < 4 * SESSION_BYTES < len(images[1])
    rig.board.power_off()
    chip = rig.chip_now()
    assert chip.selected()[0] == "ota_0"
    assert chip.read(chip.selected()[3], len(images[1])) == images[1]


def test_firmware_that_does_not_start_leaves_the_old_one(rig: Esp32) -> None:
    status, details = rig.update("broken", app_image("v2.0.0", "dead", 20_000))
    assert status == "FAILED"
    assert details["reason"].startswith("rolled-back: interrupted: rolled back by the bootloader (watchdog)"), details
    rig.board.power_off()
    chip = rig.chip_now()
    assert chip.selected()[0] == "ota_0"
    assert [one.state for one in chip.records()] == [esp.VALID, esp.ABORTED]


def test_firmware_of_another_chip_is_refused_before_anything_is_erased(rig: Esp32) -> None:
    status, details = rig.update("other", app_image("v2.0.0", "micropython", 20_000, "esp32s3"))
    assert (status, details["reason"]) == ("FAILED", "image: not an app image for chip 0")
    rig.board.power_off()
    assert not rig.chip_now().read(0x190000, 0x6000).strip(b"\xff")
