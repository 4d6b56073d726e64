# SPDX-License-Identifier: Apache-2.0
"""Runs on MicroPython: power cuts at every flash operation of an update, on the real littlefs.

    micropython powercut_program.py SCENARIO
Prints one line of JSON: {"operations", "cases", "old", "new", "bad": [first ten], "refetched": most blocks twice}.

A case: take the flash of a device that runs the old version, cut the supply at operation k (before it, in the middle of
it, after it), switch on again and hold the device to its promises: it boots a slot that is complete old or complete
new, and doing the job again ends in the one outcome of the scenario.
A flash that is cut returns -5 instead of raising: an exception would meet file finalisers in a locked heap.
"""

import asyncio
import gc
import json
import os
import sys

import vfs

from edgeagent import compat
from edgeagent.ota import launch, trial
from edgeagent.ota.manifest import parse_manifest
from edgeagent.ota.slots import Slots
from edgeagent.ota.writer import Writer
from tests.portable.ota_support import BLOCK, Artifact, contents, pattern

ROOT = "/flash/slots"
MODES = ("before", "torn", "after")
OWN = "job/1"
OLD = {"app.mpy": pattern(3000, 1), "lib/x.mpy": pattern(1500, 2)}


class Flash:
    """Counts programs and erases; dead after operation `cut`. NOR: programming clears bits, erasing sets them."""

    def __init__(self, data, blocks=48):
        self.data = data if data is not None else bytearray(b"\xff" * (blocks * BLOCK))
        self.blocks = len(self.data) // BLOCK
        self.operations = 0
        self.cut = -1
        self.mode = ""
        self.dead = False

    def _size(self, size):
        """How much of an operation happens; counts it."""
        if self.dead:
            return 0
        self.operations += 1
        if self.operations - 1 != self.cut:
            return size
        self.dead = True
        return {"before": 0, "torn": size // 2, "after": size}[self.mode]

    def readblocks(self, block, buffer, offset=0):
        if self.dead:
            return -5
        at = block * BLOCK + offset
        buffer[:] = memoryview(self.data)[at : at + len(buffer)]
        return 0

    def writeblocks(self, block, buffer, offset=0):
        at = block * BLOCK + offset
        size = self._size(len(buffer))
        view = memoryview(buffer)
        old = int.from_bytes(self.data[at : at + size], "big")
        new = int.from_bytes(bytes(view[:size]), "big")
        self.data[at : at + size] = (old & new).to_bytes(size, "big")
        if self.dead and self.mode == "torn" and size < len(buffer):
            self.data[at + size] &= 0x5A  # the byte that was being programmed
        return -5 if self.dead else 0

    def ioctl(self, operation, argument):
        if operation == 4:
            return self.blocks
        if operation == 5:
            return BLOCK
        if operation == 6:
            size = self._size(BLOCK)
            at = argument * BLOCK
            self.data[at : at + size] = b"\xff" * size
            return -5 if self.dead else 0
        return 0


class Device:
    """One power-on of a device with this flash."""

    def __init__(self, data, cut=-1, mode=""):
        self.flash = Flash(data)
        self.flash.cut = cut
        self.flash.mode = mode
        self.fetched = []

    def __enter__(self):
        vfs.mount(vfs.VfsLfs2(self.flash), "/flash")
        return self

    def __exit__(self, *error):
        vfs.umount("/flash")


class Scenario:
    """files: of the new version. ends_well: whether the new version proves itself."""

    def __init__(self, files, ends_well):
        self.artifact = Artifact(sorted(files.items()))
        self.manifest = parse_manifest(self.artifact.manifest)
        self.new = files
        self.ends_well = ends_well

    def install(self, device):
        """What the job handler does in the old version, without the network."""
        slots = Slots(ROOT)
        writer = Writer(slots.prepare(self.artifact.digest), self.manifest, self.artifact.blocks)
        try:
            for number in range(asyncio.run(writer.resume()), self.manifest.blocks):
                device.fetched.append(number)
                writer.block(number, self.artifact.payload[number * BLOCK : (number + 1) * BLOCK])
        finally:
            writer.close()
        asyncio.run(writer.finish())
        slots.complete(self.artifact.digest, self.manifest.version, 1)
        slots.activate(self.manifest.version, OWN, 60, "1.0.0")

    def power_on(self, device):
        """One boot until the next reset; False when the job has its outcome."""
        path = trial.boot(ROOT, "power-on")
        self.judge(path)
        status = trial.status(ROOT)
        if status["job"] != OWN:
            self.install(device)
            return True
        if status["state"] == "trial":
            if path[-1] != status["active"]:
                raise AssertionError("trial, but the other slot runs")
            if self.ends_well:
                trial.confirm(ROOT)
                return False
            launch.failed(ROOT, "it crashed")
            return True
        return False

    def judge(self, path):
        """(I1, I2) the slot that boots holds exactly one version. Returns "old" or "new"."""
        found = contents(path)
        if found == OLD:
            return "old"
        if found == self.new:
            return "new"
        raise AssertionError(f"mixed: {sorted([(name, len(data)) for name, data in found.items()])}")

    def finish(self, device):
        """Power on until the job has its outcome; what the device then runs."""
        for _ in range(6):
            if not self.power_on(device):
                break
        else:
            raise AssertionError(f"no outcome within 6 boots: {trial.status(ROOT)}")
        status = trial.status(ROOT)
        wanted = "confirmed" if self.ends_well else "rolled_back"
        if status["state"] != wanted:
            raise AssertionError(f"{status['state']}, not {wanted}: {status['reason']}")
        path = trial.boot(ROOT)
        if self.judge(path) != ("new" if self.ends_well else "old"):
            raise AssertionError("the wrong version runs in the end")
        if status["floor"] != (1 if self.ends_well else 0):
            raise AssertionError(f"security floor {status['floor']}")


class PointerFirst(Scenario):
    """Negative control: activates before the files are there."""

    def install(self, device):
        slots = Slots(ROOT)
        slots.prepare(self.artifact.digest)
        slots.complete(self.artifact.digest, self.manifest.version, 1)
        with open(ROOT + "/b/x", "wb") as f:
            f.write(b"x")
        slots.activate(self.manifest.version, OWN, 60, "1.0.0")
        os.remove(ROOT + "/b/x")
        for path, data in sorted(self.new.items()):
            compat.make_dirs((ROOT + "/b/" + path)[: (ROOT + "/b/" + path).rfind("/")])
            with open(ROOT + "/b/" + path, "wb") as f:
                f.write(data)


class InPlace(Scenario):
    """Negative control: overwrites the files of the running slot, as simple updaters do."""

    def install(self, device):
        for path, data in sorted(self.new.items()):
            with open(ROOT + "/a/" + path, "wb") as f:
                f.write(data)
        document = trial.status(ROOT)
        document.update({"state": "confirmed", "job": OWN, "floor": 1})
        trial.save(ROOT, document)


SMALL = {"app.mpy": pattern(4500, 3), "lib/x.mpy": pattern(3000, 4), "lib/new.mpy": b""}
LARGE = {"app.mpy": pattern(26 * BLOCK + 77, 5), "lib/x.mpy": pattern(300, 6)}
SCENARIOS = {
    "update": (Scenario, SMALL, True),
    "rollback": (Scenario, SMALL, False),
    "large": (Scenario, LARGE, True),
    "pointer-first": (PointerFirst, SMALL, True),
    "in-place": (InPlace, {"app.mpy": pattern(4500, 3), "lib/x.mpy": pattern(3000, 4)}, True),
}


def factory():
    """The flash of a device as it leaves the factory: the old version in slot a."""
    flash = Flash(None)
    vfs.VfsLfs2.mkfs(flash)
    with Device(flash.data):
        for path, data in OLD.items():
            place = ROOT + "/a/" + path
            compat.make_dirs(place[: place.rfind("/")])
            with open(place, "wb") as f:
                f.write(data)
    return flash.data


def run(device, scenario):
    """Until the outcome or the cut; True for the outcome."""
    try:
        with device:
            scenario.finish(device)
        return True
    except Exception:
        if not device.flash.dead:  # what a dead device's program makes of failing reads does not happen
            raise
        return False
    finally:
        gc.collect()


def sweep(scenario, base, step):
    clean = Device(bytearray(base))
    run(clean, scenario)
    result = {"operations": clean.flash.operations, "cases": 0, "old": 0, "new": 0, "bad": [], "refetched": 0}
    for mode in MODES:
        for cut in range(0, clean.flash.operations, step):
            result["cases"] += 1
            try:
                case(scenario, base, cut, mode, result)
            except Exception as error:
                if len(result["bad"]) < 10:
                    result["bad"].append(f"{mode} {cut}: {compat.exc_text(error)}")
                else:
                    result["bad"].append("")
    result["bad_count"] = len(result["bad"])
    result["bad"] = result["bad"][:10]
    return result


def case(scenario, base, cut, mode, result):
    first = Device(bytearray(base), cut, mode)
    run(first, scenario)
    second = Device(first.flash.data)
    with second:
        result[scenario.judge(trial.boot(ROOT, "power-on"))] += 1
        scenario.finish(second)
    twice = len(first.fetched) + len(second.fetched) - scenario.manifest.blocks
    result["refetched"] = max(result["refetched"], twice)


def storm(scenario, base, seeds):
    """Cuts at pseudo-random operations of up to six power-ons in a row; then the supply holds."""
    result = {"cases": 0, "bad": [], "cuts": 0}
    for seed in range(seeds):
        value = seed * 2654435761 + 12345
        data = bytearray(base)
        result["cases"] += 1
        try:
            for _ in range(6):
                value = (value * 1103515245 + 12345) & 0x7FFFFFFF
                device = Device(data, (value >> 8) % 120, MODES[(value >> 4) % 3])
                if run(device, scenario):
                    break
                result["cuts"] += 1
                data = device.flash.data
            calm = Device(data)
            with calm:
                # Cuts in the trial count as boots of it: either end is right, a mixture is not.
                for _ in range(8):
                    if not scenario.power_on(calm):
                        break
                else:
                    raise AssertionError("no outcome")
                status = trial.status(ROOT)
                which = scenario.judge(trial.boot(ROOT))
                if (status["state"], which) not in (("confirmed", "new"), ("rolled_back", "old")):
                    raise AssertionError(f"{status} runs {which}")
        except Exception as error:
            result["bad"].append(f"seed {seed}: {compat.exc_text(error)}")
    result["bad_count"] = len(result["bad"])
    result["bad"] = result["bad"][:10]
    return result


def main():
    name = sys.argv[1]
    if name == "storm":
        scenario = Scenario(SMALL, True)
        print(json.dumps(storm(scenario, factory(), int(sys.argv[2]))))
        return
    kind, files, ends_well = SCENARIOS[name]
    step = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(json.dumps(sweep(kind(files, ends_well), factory(), step)))


if __name__ == "__main__":
    main()
