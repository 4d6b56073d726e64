# SPDX-License-Identifier: Apache-2.0
"""What is cut: each scenario brings a device from its factory state to an outcome, and knows what must hold meanwhile.

Here is what they have in common: the application's versions, the oracle, whose letters (a) to (g) are those of
docs/cuts.md, and an update. The others stand in files of their own, with their names in SCENARIOS.
"""

import json

from edgeagent import compat
from edgeagent.jobs import ota
from edgeagent.ota import store, trial, verify
from hil.cuts.board.content import (
    BLOCK,
    contents,
    envelope,
    hexed,
    indexed,
    install,
    names,
    pad,
    public_key,
    sha,
    trust,
    write,
    write_all,
)
from hil.cuts.board.device import FACTS, OWN, Problem

APP = """VERSION = "%s"
from hil.cuts.board import device
from lib.part import PART


def main():
    device.application(%s)
"""
CRASH = "def main():\n    raise RuntimeError('broken')\n"


def app(version, size=0):
    """An application's main file: starts the agent if its other file is of the same version."""
    text = APP % (version, 'VERSION if PART == VERSION else "mixed"')
    return pad(text, size)


def part(version, size=0):
    return pad('PART = "%s"\n' % version, size)


def with_copies(known):
    """Names of records, each with its unfinished copy, which the next write of the record replaces."""
    return [name + end for name in known for end in ("", ".new")]


KNOWN = with_copies(
    ["agent.json", "trust.json", "trust.json.bak", "state/job.json"]
    + ["slots/" + name for name in ("state.json", "state.bak", "a.json", "b.json", "crash.json", "agent.json")]
    + ["slots/firmware/" + name for name in ("state.json", "state.bak")]
    + ["slots/envelope", "slots/patch.why"]  # for their unfinished copies
)


class Scenario:
    """A job on a device that runs version 1.0.0 from slot a."""

    old = {"app.py": app("1.0.0", 900), "lib/part.py": part("1.0.0"), "lib/old.py": b"gone = 1\n"}
    records = ("state/job.json", "slots/state.json", "slots/state.bak", "slots/a.json", "slots/b.json")
    blocks = 40
    program = 32  # bytes that are programmed at once, at least
    wanted = "SUCCEEDED"
    because = ""  # what the reason has to tell
    document: "object" = None
    boots = 8  # from power on to the outcome, at most
    plain = False  # are the slots of the factory plain folders
    ended = ""  # step of the job at which the service ends it
    tidies = True  # nothing is left of the download
    restarts = True  # does the device when what ran before tells it to
    place = "/slots"  # where the state of what is updated is
    homes = ("slots/a/", "slots/b/")  # folders that hold what they like

    def drive(self, flash):
        """What of the flash the file system is on."""
        return flash

    def start(self, device):
        """At power-on; False if nothing runs until the next one."""
        return True

    def factory(self, root):
        if self.old:
            self.fill(root, "a", self.old)
        write(root + "/trust.json", json.dumps(trust(1, [public_key(1)])).encode())
        compat.make_dirs(root + "/state")

    def fill(self, root, slot, files):
        if self.plain:
            write_all("%s/slots/%s" % (root, slot), files)
        else:
            install(root + "/slots", slot, files)

    def decays(self, sizes):
        """Names of the records that may lose a byte without harm. sizes: {name: bytes, 0 if it is not there}."""
        return [name for name in self.records if sizes[name]]

    def register(self, agent):
        """Give the agent its handlers, if the built-in ones are not to be used."""

    def power_on(self, device):
        """All power-ons to the outcome; False if the power went before."""
        return device.converge()

    def running(self, device):
        """(b) Which version the slot that was booted holds, byte for byte."""
        if device.ran == "bare" or not trial.Running.slot:
            return device.fail("(a) no application runs: " + device.ran)
        folder = "%s/slots/%s" % (device.root, trial.Running.slot)
        found = contents(store.MOUNT if compat.MICROPYTHON and compat.exists(folder + ".idx") else folder)
        for version, files in self.versions().items():
            if found == files:
                if version != device.ran:
                    device.fail("(b) the files of %s, but %s runs" % (version, device.ran))
                return version
        return device.fail("(b) mixed: %s" % sorted([(name, len(found[name])) for name in found]))

    def versions(self):
        return {"1.0.0": self.old}

    def booted(self, device):
        """At every boot, as soon as an application or the bare agent runs."""
        self.running(device)
        floor = self.floor(device)
        if floor < device.world["floor"]:
            device.fail("(f) security floor %d after %d" % (floor, device.world["floor"]))
        device.world.set(floor=floor)

    def floor(self, device):
        return trial.status(device.root + self.place)["floor"]

    def reported(self, device, details):
        """A terminal status has reached the service."""
        status = device.world["status"]
        if status != "SUCCEEDED" and not device.world["reason"]:
            device.fail("(e) %s without a reason" % status)
        if status == "SUCCEEDED":
            self.true(device, details)

    def true(self, device, details):
        """(e) What was reported is so."""

    def end(self, device, strict):
        """After the outcome. strict: nothing has happened that may make the job end otherwise than `wanted`."""
        world = device.world
        if world["reports"] != 1:
            raise Problem("(e) %d terminal reports" % world["reports"])
        if strict and (world["status"] != self.wanted or self.because not in world["reason"]):
            raise Problem("(e) %s: %s" % (world["status"], world["reason"]))
        if strict and compat.exists(device.root + "/state/job.json"):
            raise Problem("(g) the journal is left")
        self.true(device, {})
        self.stays(device, strict)
        self.litter(device)
        if device.problem:
            raise Problem(device.problem)

    def stays(self, device, strict):
        """(d) The next boot starts the same, and has nothing to undo."""
        slots = device.root + "/slots"
        active = trial.status(slots)["active"]
        if trial.boot(slots, "power-on") != (active and slots + "/" + active):
            raise Problem("(d) the next boot starts another slot")

    def known(self, root):
        """Names of files that are not litter."""
        known = list(KNOWN)
        for slot in "ab":
            known.append("slots/%s.idx" % slot)
            known += ["slots/store/" + entry[1] for entry in indexed(root + "/slots", slot).values()]
        return known

    def litter(self, device):
        """(g) Only what belongs there is left."""
        known = self.known(device.root)
        for name in names(device.root):
            # What an update that failed has left in the store, the next one deletes.
            if name[:12] == "slots/store/" and not device.strict:
                continue
            # A download's own files go with the outcome; should that fail or be undone, the next update does it.
            kept = name in ("slots/envelope", "slots/hashes", "slots/patch", "slots/patch.why")
            if kept and device.flash and device.strict and self.tidies:
                raise Problem("(g) left of the download: " + name)
            if not kept and name not in known and not any(name.startswith(home) for home in self.homes):
                raise Problem("(g) left over: " + name)


class Update(Scenario):
    """An update of the application, by the job."""

    new = {"app.py": app("2.0.0", 1100), "lib/part.py": part("2.0.0"), "lib/new.py": b""}
    type = "application"
    name = "app"  # of the artifact
    before = "1.0.0"  # what runs until the update, and again if it fails
    after = "2.0.0"
    raised = 1  # the security floor then, at least

    def __init__(self):
        files = sorted(self.new.items())
        self.payload = b"".join([data for _, data in files])
        pieces = [self.payload[at : at + BLOCK] for at in range(0, len(self.payload), BLOCK)]
        self.hashes = b"".join([sha(piece) for piece in pieces + [data for _, data in files]])
        document = {
            "format": 1,
            "name": self.name,
            "version": self.after,
            "type": self.type,
            "security_version": 1,
            "boards": ["TEST"],
            "runtime": FACTS["runtime"].split(" ")[0],
            "expires": None,
            "files": [[path, len(data)] for path, data in files],
            "payload": {
                "size": len(self.payload),
                "sha256": hexed(sha(self.payload)),
                "block": BLOCK,
                "blocks_sha256": hexed(sha(self.hashes)),
            },
        }
        text = json.dumps(document).encode()
        self.new_id = hexed(sha(text))  # of the artifact
        self.envelope = envelope(text, [public_key(1)])
        self.parts = (self.envelope, self.hashes, self.payload)
        sizes = {"envelope": len(self.envelope), "blocks": len(self.hashes), "payload": len(self.payload)}
        self.document = {"operation": "ota", "stream": "s", "artifact": sizes}

    def needed(self):
        """Blocks to be fetched in all."""
        return (len(self.payload) + BLOCK - 1) // BLOCK

    def versions(self):
        return {"1.0.0": self.old, "2.0.0": self.new}

    def register(self, agent):
        async def run(job):
            return await ota.run(job, self.source)

        agent.handlers.register("ota", run, ota.RESUME)

    async def source(self, job, stream, file, size, sink, have=None, tick=None):
        """The transfer, without a network. have: a bit for each block that is on flash."""
        data = self.parts[file]
        if isinstance(have, int):
            have = bytearray([255] * (have // 8) + [(1 << (have % 8)) - 1, 0])
        for block in range((size + BLOCK - 1) // BLOCK):
            if have and have[block >> 3] >> (block & 7) & 1:
                continue
            job.agent.device.alive()
            world = job.agent.device.world
            world.set(fetched=world["fetched"] + (file > 1))
            sink(block, data[block * BLOCK : (block + 1) * BLOCK])
            if tick:
                await tick(100 * block * BLOCK // size)

    def floor(self, device):
        floor = Scenario.floor(self, device)
        if self.type == "application":
            floor = max(floor, verify.load_trust(device.root + "/trust.json").floor)
        return floor

    def runs(self, device):
        """The version that runs of what is updated."""
        return device.ran

    def true(self, device, details):
        """In the end, too: what is on flash then, and what the next boot starts."""
        status = trial.status(device.root + self.place)
        told = device.world["status"]
        good = told == "SUCCEEDED"
        state, version, floor = ("confirmed", self.after, self.raised) if good else ("rolled_back", self.before, 0)
        if status["state"] != state and (good or status["job"] == OWN):
            device.fail("(e) %s, but %s" % (told, status["state"]))
        previous = details.get("previous", self.before)
        if details.get("version", version) != version or (device.strict and previous != self.before):
            device.fail("(e) %s reported" % details)
        if good and not device.world["heard"]:
            device.fail("(c) confirmed, but the service has not heard of it on trial")
        if self.floor(device) < floor:
            device.fail("(f) security floor %d" % self.floor(device))
        if self.runs(device) != version:
            device.fail("(e) %s, but %s runs" % (told, self.runs(device)))

    def end(self, device, strict):
        Scenario.end(self, device, strict)
        # Two boots are those of an update that nothing disturbs. Each more has cost one block at most.
        twice = device.world["fetched"] - self.needed()
        if strict and twice > max(0, device.world["boots"] - 2):
            raise Problem("(d) %d blocks fetched twice in %d boots" % (twice, device.world["boots"]))
        if strict and device.world["status"] == "SUCCEEDED" and self.type == "application":
            if verify.load_trust(device.root + "/trust.json").floor != 1:
                raise Problem("(f) the trust file has not got the security floor")
