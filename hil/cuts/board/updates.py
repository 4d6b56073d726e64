# SPDX-License-Identifier: Apache-2.0
"""Updates of the application: of all shapes and sizes, over all kinds of slots, and of versions that fail."""

from edgeagent import compat
from edgeagent.ota import trial
from hil.cuts.board.content import BLOCK, contents, hexed, pad, put_state, seal_slot, sha, write
from hil.cuts.board.device import Problem
from hil.cuts.board.scenarios import CRASH, Update, app, part


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
        slots = root + "/slots"
        seal_slot(slots, "b", "0.9.0", "aa", 1)
        put_state(slots, active="a", state="confirmed", version="1.0.0", job="before/1", boots=2)


class Upgrade(Again):
    """The slots are plain folders, as earlier agents filled them. The second copy of the state has stayed behind."""

    plain = True

    def factory(self, root):
        Again.factory(self, root)
        slots = root + "/slots"
        behind = trial.status(slots)
        put_state(slots)
        behind.update({"active": "b", "version": "0.9.0"})
        trial.write_sealed(slots + "/state.bak", behind)

    def booted(self, device):
        Again.booted(self, device)
        slots = device.root + "/slots"
        # What is declared complete may be gone back to.
        if not compat.exists(slots + "/b.idx") and trial.info(slots, "b")["complete"] and trial.filled(slots, "b"):
            if contents(slots + "/b") != self.stale:
                device.fail("(b) slot b is declared complete, and half empty")


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

    def power_on(self, device):
        if device.flash:
            device.flash.taboo = b"# kept"
        return Update.power_on(self, device)

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
        if device.flash and device.flash.touched:
            raise Problem("(b) what is unchanged was written")


class Decayed(Shared):
    """A file of the old version has decayed. It is fetched, and the old one stays as it is."""

    bad = KEPT[:5000] + b"?" + KEPT[5001:]

    def factory(self, root):
        Shared.factory(self, root)
        for place in ("store/" + hexed(sha(KEPT)[:16]), "a/data/kept.bin"):
            if compat.exists(root + "/slots/" + place):
                write(root + "/slots/" + place, self.bad)

    def versions(self):
        old = dict(self.old)
        old["data/kept.bin"] = self.bad
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
    before = "bare"

    def factory(self, root):
        Update.factory(self, root)
        compat.make_dirs(root + "/slots")

    def running(self, device):
        if device.ran != "bare" or trial.status(device.root + "/slots")["state"] not in ("none", "rolled_back"):
            Update.running(self, device)


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
}
