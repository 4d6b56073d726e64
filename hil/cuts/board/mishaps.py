# SPDX-License-Identifier: Apache-2.0
"""Updates to which something happens besides a cut: of what is on the flash, or by the service or the new version."""

from edgeagent import compat
from edgeagent.ota import trial
from hil.cuts.board.content import hexed, put_state, seal_slot, sha
from hil.cuts.board.device import Problem
from hil.cuts.board.scenarios import Update, app, part
from hil.cuts.board.updates import First, Rollback

ERASES = """import os

from hil.cuts.board import device


def main():
    for end in ("json", "bak"):
        os.remove(device.Device.current.root + "/slots/state." + end)
    raise RuntimeError("erased")
"""
FILLS = """from edgeagent import compat
from hil.cuts.board import device


def main():
    folder = device.Device.current.root + "/full"
    compat.make_dirs(folder)
    for n in range(99):
        try:
            with open("%s/%d" % (folder, n), "wb") as f:
                f.write(b"f" * 2000)
        except OSError:
            raise RuntimeError("broken")
"""


class Ended(Update):
    """The service ends the job when the new version, on trial, tells of itself."""

    ended = "trial"
    tidies = False  # the next update does
    wanted = "CANCELED"

    def true(self, device, details):
        Update.true(self, device, details)
        reason = trial.status(device.root + self.place)["reason"]
        if device.strict and reason != "the service ended the job":
            device.fail("(e) its trial ended because: %s" % reason)


class Faded(Update):
    """A byte of a file decays between the last block and the end of the download. A restart makes it come again."""

    wanted = "FAILED"
    because = "file-hash: app.py"

    def needed(self):
        return Update.needed(self) + 1  # it ends a boot earlier than others

    async def source(self, job, stream, file, size, sink, have=None, tick=None):
        await Update.source(self, job, stream, file, size, sink, have, tick)
        device = job.agent.device
        if file == 2 and not device.world["step"]:
            device.world.set(step=1)
            with open("%s/slots/store/%s" % (device.root, hexed(sha(self.new["app.py"])[:16])), "r+b") as f:
                f.seek(-1, 2)
                f.write(b"?")

    def end(self, device, strict):
        restarted = device.world["status"] == "SUCCEEDED" and device.world["boots"] > 2
        Update.end(self, device, strict and not restarted)


class Eraser(Rollback):
    """The new version deletes the state of the slots and crashes; so nobody counts its trials but the job."""

    new = {"app.py": ERASES.encode(), "lib/part.py": part("2.0.0")}
    because = "rolled-back"
    boots = 12


class Full(Rollback):
    """The new version fills the flash and crashes."""

    new = {"app.py": FILLS.encode(), "lib/part.py": part("2.0.0")}
    because = "rolled-back"  # after a cut its slot may have made room already
    blocks = 32
    homes = Rollback.homes + ("full/",)

    def known(self, root):
        # Without their index they are nobody's; the next update deletes them.
        given_up = ["slots/store/" + hexed(sha(data)[:16]) for data in self.new.values()]
        return Rollback.known(self, root) + given_up

    def end(self, device, strict):
        Rollback.end(self, device, strict)
        if strict and compat.exists(device.root + "/slots/b.idx"):
            raise Problem("(d) what was given up makes no room")


class Lost(First):
    """The version that should run is lost, and what the other slot holds was rolled back: the bare agent runs."""

    def factory(self, root):
        First.factory(self, root)
        self.fill(root, "b", {"app.py": app("0.9.0"), "lib/part.py": part("0.9.0")})
        slots = root + "/slots"
        seal_slot(slots, "b", "0.9.0", "bb", 1)
        put_state(slots, active="a", state="rolled_back", version="0.9.0", job="before/1", boots=2)

    def stays(self, device, strict):
        if device.ran != "bare":
            First.stays(self, device, strict)


class Stuck(Update):
    """The device does not restart when the old version tells it to. A cut may do it."""

    restarts = False
    tidies = False  # the next update does
    wanted = "FAILED"
    because = "the device did not restart"

    def end(self, device, strict):
        interrupted = device.world["boots"] > 1
        Update.end(self, device, strict and not interrupted)


SCENARIOS = {"ended": Ended, "faded": Faded, "eraser": Eraser, "full": Full, "lost": Lost, "stuck": Stuck}
