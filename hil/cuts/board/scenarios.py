# SPDX-License-Identifier: Apache-2.0
"""What is cut: each scenario brings a device from its factory state to an outcome, and knows what must hold meanwhile.

The letters (a) to (g) in messages are those of the oracle in docs/cuts.md.
"""

import binascii
import hashlib
import json
import os

from edgeagent import compat
from edgeagent.identity import Identity
from edgeagent.jobs import config as config_job
from edgeagent.jobs import ota
from edgeagent.jobs import trust as trust_job
from edgeagent.ota import manifest, store, trial, verify
from hil.cuts.board.device import FACTS, Problem, sign

BLOCK = 4096
assert config_job and trust_job

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


def pad(text, size):
    """`text` as bytes, filled up with a comment that differs from block to block."""
    data = bytearray(text.encode())
    line = 0
    while len(data) < size:
        data += b"# %d\n" % (line * 7919)
        line += 1
    return bytes(data[:size] if size else data)


def write(path, data):
    compat.make_dirs(path[: path.rfind("/")])
    with open(path, "wb") as f:
        f.write(data)
        compat.sync_file(f)


def names(folder):
    """Relative paths of all files below a folder."""
    found = []
    for name in os.listdir(folder) if not compat.MICROPYTHON else ():
        if compat.is_dir(folder + "/" + name):
            found += [name + "/" + inner for inner in names(folder + "/" + name)]
        else:
            found.append(name)
    # One look at the folder instead of one at each file: littlefs reads its log for each.
    for name, kind in [entry[:2] for entry in os.ilistdir(folder)] if compat.MICROPYTHON else ():
        if kind & 0x4000:
            found += [name + "/" + inner for inner in names(folder + "/" + name)]
        else:
            found.append(name)
    return found


def contents(folder):
    """{relative path: bytes} of all files below a folder."""
    found = {}
    for name in names(folder):
        with open(folder + "/" + name, "rb") as f:
            found[name] = f.read()
    return found


def install(root, slot, files):
    """Fill a slot of the folder `root` as the factory does."""
    text = "\n"
    for name in sorted(files):
        content = hexed(sha(files[name])[:16])
        write(root + "/store/" + content, files[name])
        if not compat.MICROPYTHON:
            write("%s/%s/%s" % (root, slot, name), files[name])
        text += "%s %d %s\n" % (name, len(files[name]), content)
    write("%s/%s.idx" % (root, slot), sha(text.encode())[:8] + text.encode())


def indexed(root, slot):
    """{path: (bytes, name in the store)} of a slot with an index."""
    raw = compat.read_file("%s/%s.idx" % (root, slot), 8192) or b""
    text = raw[9:].decode() if sha(raw[8:])[:8] == raw[:8] else ""
    return {line.split()[0]: line.split()[1:] for line in text.split("\n")[:-1]}


def hexed(data):
    return binascii.hexlify(data).decode()


def sha(data):
    return hashlib.sha256(data).digest()


def envelope(text, keys):
    parts = [manifest.MAGIC, len(text).to_bytes(2, "big"), text, bytes([len(keys)])]
    for public in keys:
        signature = sign(public, sha(text))
        parts.append(sha(public)[:8] + bytes([1]) + len(signature).to_bytes(2, "big") + signature)
    return b"".join(parts)


def public_key(n):
    return sha(b"x%d" % n) + sha(b"y%d" % n)


def trust(version, keys, floor=0):
    listed = [{"id": hexed(sha(key)[:8]), "algorithm": "ecdsa-p256", "public": hexed(key)} for key in keys]
    return {"version": version, "threshold": 1, "keys": listed, "security_version_floor": floor}


def known_names():
    """Files that are not litter, and the unfinished copies of records, which the next write of the record replaces."""
    known = ["agent.json", "trust.json", "trust.json.bak", "state/job.json"]
    known += ["slots/" + name for name in ("state.json", "state.bak", "a.json", "b.json", "crash.json", "agent.json")]
    known += ["slots/firmware/" + name for name in ("state.json", "state.bak")]
    known += ["slots/envelope", "slots/patch.why"]  # their unfinished copies
    return known + [name + ".new" for name in known]


KNOWN = known_names()


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

    def drive(self, flash):
        """What of the flash the file system is on."""
        return flash

    def start(self, device):
        """At power-on; False if nothing runs until the next one."""
        return True

    plain = False  # are the slots of the factory plain folders

    def factory(self, root):
        if self.old:
            self.fill(root, "a", self.old)
        write(root + "/trust.json", json.dumps(trust(1, [public_key(1)])).encode())
        compat.make_dirs(root + "/state")

    def fill(self, root, slot, files):
        if not self.plain:
            return install(root + "/slots", slot, files)
        for name, data in files.items():
            write("%s/slots/%s/%s" % (root, slot, name), data)

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
        return trial.status(device.root + "/slots")["floor"]

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
        # It stays so: the next boot starts the same, and has nothing to undo.
        slots = device.root + "/slots"
        active = trial.status(slots)["active"]
        if trial.boot(slots, "power-on") != (active and slots + "/" + active):
            raise Problem("(d) the next boot starts another slot")
        self.litter(device)
        if device.problem:
            raise Problem(device.problem)

    def litter(self, device):
        """(g) Only what belongs there is left."""
        slots = device.root + "/slots"
        known = list(KNOWN)
        for slot in "ab":
            known.append("slots/%s.idx" % slot)
            known += ["slots/store/" + entry[1] for entry in indexed(slots, slot).values()]
        for name in names(device.root):
            # What an update that failed has left in the store, the next one deletes.
            if name[:12] == "slots/store/" and not device.strict:
                continue
            # A download's own files go with the outcome; should that fail or be undone, the next update does it.
            kept = name in ("slots/envelope", "slots/hashes", "slots/patch", "slots/patch.why")
            if kept and device.flash and device.strict:
                raise Problem("(g) left of the download: " + name)
            if not kept and name not in known and name[:8] not in ("slots/a/", "slots/b/"):
                raise Problem("(g) left over: " + name)


class Update(Scenario):
    """An update of the application, by the job."""

    new = {"app.py": app("2.0.0", 1100), "lib/part.py": part("2.0.0"), "lib/new.py": b""}
    type = "application"

    def __init__(self):
        files = sorted(self.new.items())
        self.payload = b"".join([data for _, data in files])
        pieces = [self.payload[at : at + BLOCK] for at in range(0, len(self.payload), BLOCK)]
        self.hashes = b"".join([sha(piece) for piece in pieces + [data for _, data in files]])
        document = {
            "format": 1,
            "name": "app",
            "version": "2.0.0",
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
        self.envelope = envelope(json.dumps(document).encode(), [public_key(1)])
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
        floor = verify.load_trust(device.root + "/trust.json").floor
        return max(floor, Scenario.floor(self, device))

    def true(self, device, details):
        """In the end, too: what is on flash then, and what the next boot starts."""
        status = trial.status(device.root + "/slots")
        good = device.world["status"] == "SUCCEEDED"
        state, version, floor = ("confirmed", "2.0.0", 1) if good else ("rolled_back", "1.0.0", 0)
        if status["state"] != state and (good or status["job"] == "job/1"):
            device.fail("(e) %s, but %s" % (device.world["status"], status["state"]))
        if details.get("version", version) != version:
            device.fail("(e) %s reported" % details)
        if self.floor(device) < floor:
            device.fail("(f) security floor %d" % self.floor(device))
        if device.ran != version and not (device.ran == "bare" and not good and not self.old):
            device.fail("(e) %s, but %s runs" % (device.world["status"], device.ran))

    def end(self, device, strict):
        Scenario.end(self, device, strict)
        # Two boots are those of an update that nothing disturbs. Each more has cost one block at most.
        twice = device.world["fetched"] - self.needed()
        if strict and twice > max(0, device.world["boots"] - 2):
            raise Problem("(d) %d blocks fetched twice in %d boots" % (twice, device.world["boots"]))
        if strict and device.world["status"] == "SUCCEEDED":
            if verify.load_trust(device.root + "/trust.json").floor != 1:
                raise Problem("(f) the trust file has not got the security floor")


class Many(Update):
    """Files in folders, of all kinds of sizes; one spans blocks, one is unchanged, folders come and go."""

    new = {
        "app.py": app("2.0.0", 5000),
        "lib/part.py": part("2.0.0", 300),
        "lib/new.py": b"",
        "data/x/one.bin": pad("1", 4096),
        "data/x/two.bin": pad("2", 33),
        "data/y/three.bin": pad("3", 2000),
        "data/four.txt": pad("4", 129),
        "view/deep/five.txt": pad("5", 700),
    }
    blocks = 48


class Large(Update):
    """A download of many blocks."""

    new = {"app.py": app("2.0.0", 100000), "lib/part.py": part("2.0.0", 300)}
    blocks = 64


class Again(Update):
    """The other slot holds an older version, with a file that would shadow the new one, and its records.

    The flash is that of an RP2, which is programmed 256 bytes at a time.
    """

    program = 256

    stale = {"app.py": app("0.9.0", 2000), "lib/part.py": part("0.9.0"), "lib/part.mpy": b"M", "stale/a/b.py": b"1"}

    def factory(self, root):
        Update.factory(self, root)
        self.fill(root, "b", self.stale)
        document = trial.status(root + "/slots")
        document.update({"active": "a", "state": "confirmed", "version": "1.0.0", "job": "before/1", "boots": 2})
        trial.write_sealed(
            root + "/slots/b.json",
            {"complete": True, "artifact": "aa", "version": "0.9.0", "security_version": 0, "n": 1},
        )
        trial.save(root + "/slots", document)


class Upgrade(Again):
    """The slots are plain folders, as earlier agents filled them."""

    plain = True


KEPT = pad("# the same", 9000).replace(b"#", b"# kept")
MOVED = pad("# moved", 1500).replace(b"#", b"# kept")


class Shared(Update):
    """Two files are those of the old version, one under another path, and twice: neither fetched nor written."""

    old = {"app.py": app("1.0.0", 900), "lib/part.py": part("1.0.0"), "data/kept.bin": KEPT, "data/before.txt": MOVED}
    new = {
        "app.py": app("2.0.0", 5000),
        "data/kept.bin": KEPT,
        "data/then.txt": MOVED,
        "data/twice.txt": MOVED,
        "lib/part.py": part("2.0.0"),
    }
    records = Update.records + ("slots/b.idx",)
    blocks = 64

    def needed(self):
        return len(self.payload) // BLOCK + 1 - self.whole()

    def whole(self):
        """Blocks of the payload that hold nothing but what is there already."""
        same = b"".join([b"x" * len(data) if b"# kept" in data else data for _, data in sorted(self.new.items())])
        return len([at for at in range(0, len(same), BLOCK) if same[at : at + BLOCK] == b"x" * BLOCK])

    def decays(self, sizes):
        # Once the new version is the good one, its index is as little in two copies as its files are.
        over = trial.status("/flash/slots")["state"] == "confirmed"
        return [name for name in Update.decays(self, sizes) if name[-4:] != ".idx" or not over]

    def end(self, device, strict):
        Update.end(self, device, strict)
        if strict and device.world["fetched"] < self.needed():
            raise Problem("(d) %d blocks fetched of %d" % (device.world["fetched"], self.needed()))
        for operation in device.flash.log or () if device.flash else ():
            if b"# kept" in (operation[1] or b""):
                raise Problem("(b) what is unchanged was written")


class Decayed(Shared):
    """A file of the old version has decayed. It is fetched, and the old one stays as it is."""

    def factory(self, root):
        Shared.factory(self, root)
        for place in ("store/" + hexed(sha(KEPT)[:16]), "a/data/kept.bin"):
            if compat.exists(root + "/slots/" + place):
                write(root + "/slots/" + place, KEPT[:5000] + b"?" + KEPT[5001:])

    def versions(self):
        old = dict(self.old)
        old["data/kept.bin"] = KEPT[:5000] + b"?" + KEPT[5001:]
        return {"1.0.0": old, "2.0.0": self.new}

    def needed(self):
        return 3 * Update.needed(self)  # a reset costs all of the file, too

    def end(self, device, strict):
        Update.end(self, device, strict)


class Rollback(Update):
    """The new version crashes when it is started."""

    new = {"app.py": CRASH.encode(), "lib/part.py": part("2.0.0")}
    wanted = "FAILED"
    because = "broken"


class Hang(Rollback):
    """The new version hangs when it is started, until the watchdog restarts the device."""

    new = {"app.py": b"def main():\n    raise SystemExit\n", "lib/part.py": part("2.0.0")}
    because = "interrupted"


class First(Update):
    """A device without an application gets its first one; until then the bare agent runs."""

    old = {}

    def factory(self, root):
        Update.factory(self, root)
        compat.make_dirs(root + "/slots")

    def running(self, device):
        if device.ran != "bare" or trial.status(device.root + "/slots")["state"] not in ("none", "rolled_back"):
            Update.running(self, device)


class Config(Scenario):
    """A job changes agent.json."""

    before = {
        "endpoint": "e",
        "ca": "ca",
        "thing_name": "t",
        "certificate": "c",
        "key": "k",
        "keepalive": 60,
        "attributes": {"site": "a", "hall": "1"},
    }
    document = {
        "operation": "config",
        "config": {"keepalive": 90, "attributes": {"site": "b"}},
        "remove": ["attributes.hall"],
    }

    def factory(self, root):
        Scenario.factory(self, root)
        write(root + "/agent.json", json.dumps(self.before).encode())

    def booted(self, device):
        Scenario.booted(self, device)
        self.read(device)

    def read(self, device):
        """ "old" or "new"."""
        with open(device.root + "/agent.json") as f:
            text = f.read()
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        after = dict(self.before)
        after["keepalive"] = 90
        after["attributes"] = {"site": "b"}
        if data not in (self.before, after):
            device.fail("(b) agent.json is neither the old nor the new one: " + text)
        return "old" if data == self.before else "new"

    def true(self, device, details):
        good = device.world["status"] == "SUCCEEDED"
        if self.read(device) != ("new" if good else "old"):
            device.fail("(e) %s, but the %s configuration" % (device.world["status"], self.read(device)))


class Trust(Scenario):
    """A job replaces the keys, over two versions at once; the security floor is 3 and stays."""

    records = Scenario.records + ("trust.json", "trust.json.bak")

    def __init__(self):
        chain = []
        for version in (2, 3):
            text = json.dumps(trust(version, [public_key(version)])).encode()
            chain.append(envelope(text, [public_key(version - 1), public_key(version)]))
        self.document = {
            "operation": "trust",
            "envelopes": [binascii.b2a_base64(raw).decode().strip() for raw in chain],
        }

    def factory(self, root):
        Scenario.factory(self, root)
        write(root + "/trust.json", json.dumps(trust(1, [public_key(1)], 3)).encode())

    def decays(self, sizes):
        # The file of the factory has no second copy; the first replacement, which is sealed, has made one.
        plain = not sizes["trust.json.bak"] and (compat.read_file("/flash/trust.json", 8192) or b"")[:1] == b"{"
        return [name for name in Scenario.decays(self, sizes) if name[:5] != "trust" or not plain]

    def floor(self, device):
        return verify.load_trust(device.root + "/trust.json").floor

    def booted(self, device):
        Scenario.booted(self, device)
        self.read(device)

    def read(self, device):
        found = verify.load_trust(device.root + "/trust.json")
        key = public_key(found.version)
        if found.threshold != 1 or found.keys != {sha(key)[:8]: (1, key)} or found.version not in (1, 2, 3):
            device.fail("(b) trust of version %d has other keys" % found.version)
        if found.floor != 3:
            device.fail("(f) security floor %d" % found.floor)
        # Whoever is told of a version must never see an older one.
        if found.version < device.world["step"]:
            device.fail("(f) trust fell from version %d to %d" % (device.world["step"], found.version))
        device.world.set(step=found.version)
        return found.version

    def true(self, device, details):
        if device.world["status"] == "SUCCEEDED" and self.read(device) != 3:
            device.fail("(e) SUCCEEDED, but trust of version %d" % self.read(device))


class Steps(Scenario):
    """A job of the application that stores how far it is: what it has done once is known, whatever happens."""

    document = {"operation": "count", "until": 6}
    records = ("state/job.json",)

    def register(self, agent):
        async def run(job):
            world = agent.device.world
            done = job.data.get("done", 0)
            # What was stored is never lost, and nothing is stored before it was done.
            # Only when the journal has decayed it begins again.
            lost = agent.device.decayed and not done and not job.resumed
            if not lost and (world["step"] - done not in (0, 1) or (done and not job.resumed)):
                agent.device.fail("(d) %d steps stored, %d done" % (done, world["step"]))
            while done < job.document["until"]:
                done += 1
                agent.device.alive()
                world.set(step=done)
                job.checkpoint(done=done, note="x" * 50)
                if done == 3:
                    job.reset("half way")
            return {"done": done}

        agent.handlers.register("count", run, True)

    def true(self, device, details):
        if device.world["status"] == "SUCCEEDED" and device.world["step"] != 6:
            device.fail("(e) SUCCEEDED after %d steps" % device.world["step"])


def pem(kind, n, size):
    body = binascii.b2a_base64(b"\x30" + sha(b"%s%d" % (kind.encode(), n)) * size).decode().strip()
    return "-----BEGIN %s-----\n%s\n-----END %s-----\n" % (kind, body, kind)


class Keys(Scenario):
    """The device's own identity: stored, replaced on trial, confirmed, replaced on trial, given up."""

    records = tuple(["state/identity/%s/%s" % (slot, name) for slot in "ab" for name in ("thing.json", "cert", "key")])
    # Per step: the generation on trial or None, what may be loaded before and after it.
    plan = ((2, True), (2, "well"), (3, False), (4, True), (4, "refused"))

    def decays(self, sizes):
        # A device's first identity is alone, and lost without its record: the device is provisioned again.
        found = Scenario.decays(self, sizes)
        return found if len(found) == 6 else []

    def factory(self, root):
        self.box(root).store("t", pem("CERTIFICATE", 1, 12), pem("KEY", 1, 4))

    def box(self, root):
        return Identity(root + "/state", False)

    def generation(self, device, paths):
        """Which certificate and key the device has; they belong together."""
        if not paths and device.decayed and device.world["step"] >= 4:
            return 3  # the other one was given up: the device is provisioned again
        if not paths or paths[0] != "t":
            device.fail("(a) no identity: %s" % (paths,))
        found = []
        for path, kind, size in ((paths[1], "CERTIFICATE", 12), (paths[2], "KEY", 4)):
            with open(path, "rb") as f:
                data = f.read()
            found += [n for n in range(1, 5) if data == b"\x30" + sha(b"%s%d" % (kind.encode(), n)) * size]
        if len(found) != 2 or found[0] != found[1]:
            device.fail("(b) certificate and key are of generations %s" % found)
        return found[0]

    def power_on(self, device):
        try:
            while device.world["step"] < len(self.plan):
                self.life(device)
                device.alive()
            self.life(device)
        except SystemExit:
            if device.problem:
                raise Problem(device.problem) from None
            return False
        except OSError:
            if device.flash and device.flash.dead:
                return False
            raise
        return True

    def life(self, device):
        """One step. An operation that fails is tried again, as its job does."""
        step = device.world["step"]
        box = self.box(device.root)
        allowed = {0: (1, 2), 1: (2,), 2: (2, 3), 3: (3, 4), 4: (4, 3), 5: (3,)}[step]
        found = self.generation(device, box.load())
        device.alive()
        if found not in allowed and not device.decayed:
            # After three boots on trial the one before is used again: the harness is patient, the device is not.
            if device.world["trials"] < 3:
                device.fail("(d) generation %d in step %d" % (found, step))
        if step == len(self.plan):
            return
        n, how = self.plan[step]
        for _ in range(3):
            try:
                if isinstance(how, bool):
                    box.store("t", pem("CERTIFICATE", n, 12), pem("KEY", n, 4), how)
                else:
                    device.world.set(trials=device.world["trials"] + 1)
                    self.generation(device, box.start())
                    box.finish("" if how == "well" else how)
                break
            except OSError:
                device.alive()
        else:
            device.fail("(d) cannot be stored")
        device.alive()
        device.world.set(step=step + 1)

    def end(self, device, strict):
        if self.generation(device, self.box(device.root).load()) != 3 and not device.decayed:
            raise Problem("(d) ends with the wrong generation")
        for name in names(device.root):
            if name.split("/")[-1] not in ("cert", "key", "thing.json", "thing.json.new", "cert.new", "key.new"):
                raise Problem("(g) left over: " + name)


SCENARIOS = {
    "update": Update,
    "many": Many,
    "large": Large,
    "again": Again,
    "upgrade": Upgrade,
    "shared": Shared,
    "decayed": Decayed,
    "rollback": Rollback,
    "hang": Hang,
    "first": First,
    "config": Config,
    "trust": Trust,
    "steps": Steps,
    "identity": Keys,
}
