# SPDX-License-Identifier: Apache-2.0
"""The job operation rollback on a device that runs version 2.0.0, and still has 1.0.0."""

import asyncio
import json
import sys

from edgeagent import compat
from edgeagent.ota import gate, partition, trial, window
from hil.cuts.board.content import BLOCK, hexed, indexed, public_key, put_state, seal_slot, sha, trust, write
from hil.cuts.board.device import OWN, Problem
from hil.cuts.board.firmware import Firmware
from hil.cuts.board.scenarios import CRASH, Scenario, Update, app, part
from hil.esp32_flash import Chip
from hil.esp32_image import app_image

assert gate and window

CONFIGURATION = b'{"site": "a"}'
BREAKS = """from hil.cuts.board import device

with open(device.Device.current.root + "/agent.json", "wb") as f:
    f.write(b"spoilt")


"""


class GoBack(Update):
    """Of the application, from slot b to slot a. Both versions are good."""

    document = {"operation": "rollback", "version": "1.0.0"}
    records = Update.records + ("slots/agent.json",)  # noqa: RUF005  MicroPython has no (*a, b)
    before, after = "2.0.0", "1.0.0"
    raised = 0
    since = 0  # the sequence number of the state when slot a became complete; that of the state is 1

    def __init__(self):
        """No artifact."""

    def factory(self, root):
        self.fill(root, "a", self.old)
        self.fill(root, "b", self.new)
        write(root + "/agent.json", CONFIGURATION)
        write(root + "/trust.json", json.dumps(trust(1, [public_key(1)])).encode())
        compat.make_dirs(root + "/state")
        slots = root + "/slots"
        seal_slot(slots, "a", "1.0.0", "a", self.since)
        seal_slot(slots, "b", "2.0.0", "b", 0)
        state = {"active": "b", "state": "confirmed", "version": "2.0.0", "previous_version": "1.0.0"}
        put_state(slots, job="before/1", boots=1, **state)

    def register(self, agent):
        def may_update(stage):
            agent.device.world.set(step=1)
            return True

        agent.hooks["may_update"] = may_update

    def booted(self, device):
        Update.booted(self, device)
        if trial.status(device.root + "/slots")["job"] == OWN and not device.world["step"]:
            device.fail("(d) went back without asking the application")

    def floor(self, device):
        return trial.status(device.root + "/slots")["floor"]

    def end(self, device, strict):
        Scenario.end(self, device, strict)
        # The version that was left, or could not prove itself, is still complete.
        both = trial.filled(device.root + "/slots", "a") and trial.filled(device.root + "/slots", "b")
        if strict and not both:
            raise Problem("(b) one of the versions is gone")
        # Once its copy has decayed there is nothing to put back.
        known = (CONFIGURATION,) if strict else (CONFIGURATION, b"spoilt")
        if compat.read_file(device.root + "/agent.json", 999) not in known:
            raise Problem("(b) the configuration is not what it was")


class GoBackToBad(GoBack):
    """What is gone back to damages the configuration and crashes: the version that was left comes back, and it, too."""

    old = {"app.py": (BREAKS + CRASH).encode(), "lib/part.py": part("1.0.0")}
    new = {"app.py": app("2.0.0", 1100), "lib/part.py": part("2.0.0"), "lib/new.py": b""}
    wanted = "FAILED"
    because = "broken"

    def end(self, device, strict):
        GoBack.end(self, device, strict)
        if strict and device.world["boots"] < 5:  # after two cuts it would tell nothing new
            device.flash.log = None  # no cut in this
            write(device.root + "/agent.json", b"{}")
            device.boot()
            if compat.read_file(device.root + "/agent.json", 999) != b"{}":
                raise Problem("(b) the configuration is put back again")


class NotBack(GoBack):
    """Slot a was filled since, and has never run."""

    since = 1
    wanted = "FAILED"
    because = "slot: nothing is kept"


class HalfBack(GoBack):
    """Slot a is half overwritten, and its record has decayed."""

    wanted = "FAILED"
    because = "slot: nothing is kept"

    def factory(self, root):
        GoBack.factory(self, root)
        slots = root + "/slots"
        write("%s/store/%s" % (slots, indexed(slots, "a")["app.py"][1]), self.old["app.py"][:450])
        write(slots + "/a.json", b"decayed")


class FirmwareBack(Firmware):
    """Of the firmware, from ota_1 to ota_0. Both came as artifacts of security version 1."""

    before, after = "v2.0.0", "v1.0.0"
    id = hexed(sha(b"v1.0.0"))

    def __init__(self):
        Firmware.__init__(self)
        self.document = {"operation": "rollback", "kind": "firmware", "version": "v1.0.0"}

    def factory(self, root):
        """By a real update."""
        Firmware.factory(self, root)
        folder = root + self.place
        compat.make_dirs(folder)
        put_state(folder, active="ota_0", state="confirmed", floor=1, artifacts={"ota_0": self.id}, levels={"ota_0": 1})
        asyncio.run(self.download(folder, "v2.0.0", self.new_id).activate("v2.0.0", "before/1", 60, "v1.0.0"))
        self.chip(folder).confirm()

    def chip(self, folder):
        """The firmware after a restart."""
        chip = sys.modules["esp32"] = Chip(self.flash)
        chip.power_on()
        return partition.Firmware(folder)

    def download(self, folder, version, artifact):
        """The firmware, with an image that is ready to be activated in the other partition."""
        target = self.chip(folder)
        target.prepare(artifact)
        image = self.images[version]
        for at in range(0, len(image), BLOCK):
            target.other.ioctl(6, at // BLOCK)
            target.other.writeblocks(at // BLOCK, image[at : at + BLOCK], 0)
        target.complete(artifact, version, 1)
        return target

    def needed(self):
        return 0

    def end(self, device, strict):
        Firmware.end(self, device, strict)
        chip = Chip(device.flash)
        for entry, version in zip(chip.slots(), self.holds()):
            image = self.images[version]
            if chip.read(entry[3], len(image)) != image:
                raise Problem("(b) %s has lost %s" % (entry[0], version))

    def holds(self):
        """Versions in ota_0 and ota_1, before and after."""
        return "v1.0.0", "v2.0.0"


class FirmwareBackToSick(FirmwareBack):
    """The application finds no peace with what is gone back to."""

    wanted = "FAILED"
    because = "sensor"

    def register(self, agent):
        if agent.device.version == "v1.0.0":
            asyncio.create_task(self.sick(agent))


class FirmwareNotBack(FirmwareBack):
    """Another image was downloaded since, and not activated: it is not what the record speaks of."""

    wanted = "FAILED"
    because = "slot: nothing is kept"

    def __init__(self):
        FirmwareBack.__init__(self)
        self.images["v3.0.0"] = app_image("v3.0.0", "well", 6000)
        self.document = {"operation": "rollback", "kind": "firmware"}

    def factory(self, root):
        FirmwareBack.factory(self, root)
        self.download(root + self.place, "v3.0.0", hexed(sha(b"v3.0.0")))

    def holds(self):
        return "v3.0.0", "v2.0.0"


SCENARIOS = {
    "rollback-job": GoBack,
    "rollback-job-bad": GoBackToBad,
    "rollback-job-lost": NotBack,
    "rollback-job-half": HalfBack,
    "firmware-back": FirmwareBack,
    "firmware-back-sick": FirmwareBackToSick,
    "firmware-back-lost": FirmwareNotBack,
}
