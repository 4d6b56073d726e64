# SPDX-License-Identifier: Apache-2.0
"""Updates of an ESP32's firmware. File system, app partitions and otadata are parts of one flash, cut alike.

The bootloader runs at every power-on, and its own writes to otadata are cut as well (hil/esp32_flash.py). What a
partition holds is an image that the bootloader takes; the same agent runs from each, or from a broken one none.
"""

import asyncio
import sys

from edgeagent.compat import make_dirs
from edgeagent.ota import delta, guard, partition
from hil import esp32_tables as esp
from hil.cuts.board.content import hexed, put_state, sha
from hil.cuts.board.deltas import offer
from hil.cuts.board.device import Problem
from hil.cuts.board.scenarios import Scenario, Update
from hil.esp32_flash import BLOCK, Chip
from hil.esp32_image import app_image

assert delta and partition  # loaded once
TABLE = (
    ("otadata", esp.DATA, esp.OTADATA, 0xD000, 0x2000),
    ("ota_0", esp.APP, esp.OTA_0, 0x10000, 0x4000),
    ("ota_1", esp.APP, esp.OTA_0 + 1, 0x20000, 0x4000),
)
TAKEN = [esp.TABLE_AT // BLOCK, 0xD, 0xE] + list(range(0x10, 0x14)) + list(range(0x20, 0x24))
FILES = [block for block in range(36 + 11) if block not in TAKEN]


class Drive:
    """The file system's blocks: those that nothing else is on, so that the whole flash is small."""

    def __init__(self, flash):
        self.flash = flash

    def readblocks(self, block, buffer, offset=0):
        return self.flash.readblocks(FILES[block], buffer, offset)

    def writeblocks(self, block, buffer, offset=0):
        return self.flash.writeblocks(FILES[block], buffer, offset)

    def ioctl(self, operation, argument):
        if operation == 4:
            return len(FILES)
        return self.flash.ioctl(operation, FILES[argument] if operation == 6 else argument)


class Firmware(Update):
    """An update of the firmware, by the job."""

    type = "firmware"
    name = "firmware"
    place = "/slots/firmware"
    before, after = "v1.0.0", "v2.0.0"
    blocks = FILES[-1] + 1
    behaviour = "well"
    records = ("state/job.json", "slots/firmware/state.json", "slots/firmware/state.bak")
    size = 9000  # of the new image's data
    text = b""
    id: "str | None" = None  # of the artifact that the old image came as

    def __init__(self):
        self.images = {
            "v1.0.0": app_image("v1.0.0", "well", 6000, fill=self.text),
            "v2.0.0": app_image("v2.0.0", self.behaviour, self.size, fill=self.text),
        }
        self.new = {"micropython.bin": self.images["v2.0.0"]}
        Update.__init__(self)

    def drive(self, flash):
        self.flash = flash
        return Drive(flash)

    def factory(self, root):
        """As esptool leaves it: the image in ota_0, otadata blank, which the bootloader fills at the first boot."""
        Update.factory(self, root)
        data = self.flash.data
        older = app_image("v0.9.0", "stale", 12000)
        parts = ((esp.TABLE_AT, esp.table_bytes(TABLE)), (0x10000, self.images["v1.0.0"]), (0x20000, older))
        for at, part in parts:
            data[at : at + len(part)] = part

    def start(self, device):
        chip = Chip(device.flash)
        sys.modules["esp32"] = chip
        entry = chip.power_on()
        device.alive()
        if not entry:
            device.fail("(a) no firmware boots")
        device.version = self.image(device, chip)
        if device.version == "v2.0.0" and self.behaviour == "dead":
            self.died(chip)
            return False
        return True

    def died(self, chip):
        """The image restarts the chip before the agent runs."""
        records = chip.records()
        if records[esp.active(records)].state != esp.PENDING:
            # Torn between its CRC, which does not cover it, and this: ESP-IDF does not watch the image. docs/ota.md.
            raise SystemExit("unwatched")

    def image(self, device, chip):
        """(b) The version of the image that runs, byte for byte."""
        entry = chip.running
        for version, image in self.images.items():
            if chip.read(entry[3], len(image)) == image:
                return version
        return device.fail("(b) %s holds neither image, and runs" % entry[0])

    def register(self, agent):
        Update.register(self, agent)
        if agent.device.version == "v2.0.0" and self.behaviour == "sick":
            asyncio.create_task(self.sick(agent))
        if agent.device.version == "v2.0.0" and self.behaviour == "brief":
            agent.healthy = agent.port.reset  # as soon as it is asked

    async def sick(self, agent):
        async def healthy():
            return False, "sensor"

        agent.healthy = healthy
        await guard.watch(agent)

    versions = Scenario.versions  # of the application

    def runs(self, device):
        return device.version

    def stays(self, device, strict):
        Scenario.stays(self, device, strict)
        # Whatever happens from now on, the same image boots: nothing is left to be confirmed.
        for _ in range(2):
            chip = Chip(device.flash)
            chip.power_on()
            version = self.image(device, chip)
            if version != device.version:
                raise Problem("(d) the next boot starts %s" % version)
        # What the next patch will be looked for. Unknown costs a download; anything else is never so.
        known = partition.Firmware(device.root + self.place).old()
        wanted = self.new_id if device.version == "v2.0.0" else self.id
        if (known and known.artifact) not in (wanted, wanted if strict else None):
            raise Problem("(d) %s runs, taken for %s" % (device.version, known and known.artifact))


class Dead(Firmware):
    """The new image never gets as far as the agent."""

    behaviour = "dead"
    wanted = "FAILED"
    because = "rolled back by the bootloader"
    boots = 16


class Sick(Firmware):
    """The new image runs, and the application finds no peace with it."""

    behaviour = "sick"
    wanted = "FAILED"
    because = "sensor"


class Crash(Firmware):
    """The application crashes under the new image."""

    wanted = "FAILED"
    because = "not under this one"

    def register(self, agent):
        if agent.device.version == "v2.0.0":
            raise RuntimeError("not under this one")
        Firmware.register(self, agent)


class Brief(Dead):
    """The new image gets as far as the agent, and a little farther."""

    behaviour = "brief"


class Delta(Firmware):
    """The old image came as an artifact; a patch of two blocks replaces three."""

    size = 12000
    text = b"edgeagent"
    id = hexed(sha(b"v1.0.0"))

    def __init__(self):
        Firmware.__init__(self)
        offer(self, self.id, self.images["v1.0.0"], 5800)  # there the code begins

    def factory(self, root):
        Firmware.factory(self, root)
        make_dirs(root + self.place)
        put_state(root + self.place, active="ota_0", state="confirmed", artifacts={"ota_0": self.id})

    def needed(self):
        return (len(self.patch) + BLOCK - 1) // BLOCK

    def reported(self, device, details):
        Firmware.reported(self, device, details)
        if device.strict and details.get("delta"):
            device.fail("(e) the delta: %s" % details)


SCENARIOS = {
    "firmware": Firmware,
    "firmware-brief": Brief,
    "firmware-crash": Crash,
    "firmware-dead": Dead,
    "firmware-delta": Delta,
    "firmware-sick": Sick,
}
