# SPDX-License-Identifier: Apache-2.0
"""The job operation rollback on a device that runs 2.0.0 from slot b, and still has 1.0.0 in slot a."""

import json

from edgeagent import compat
from edgeagent.ota import gate, trial, window
from hil.cuts.board.device import Problem
from hil.cuts.board.scenarios import CRASH, Scenario, Update, app, part, public_key, trust, write

assert gate and window

CONFIGURATION = b'{"site": "a"}'
BREAKS = """from hil.cuts.board import device

with open(device.Device.current.root + "/agent.json", "wb") as f:
    f.write(b"rubbish")


"""


class GoBack(Update):
    """Both versions are good."""

    document = {"operation": "rollback", "version": "1.0.0"}

    def __init__(self):
        """No artifact."""

    def factory(self, root):
        self.fill(root, "a", self.old)
        self.fill(root, "b", self.new)
        write(root + "/agent.json", CONFIGURATION)
        write(root + "/trust.json", json.dumps(trust(1, [public_key(1)])).encode())
        compat.make_dirs(root + "/state")
        slots = root + "/slots"
        for slot, version in (("a", "1.0.0"), ("b", "2.0.0")):
            known = {"complete": True, "artifact": slot, "version": version, "security_version": 0, "n": 1}
            trial.write_sealed("%s/%s.json" % (slots, slot), known)
        document = trial.status(slots)
        document.update({"active": "b", "state": "confirmed", "version": "2.0.0", "previous_version": "1.0.0"})
        document.update({"job": "before/1", "boots": 1})
        trial.save(slots, document)

    def register(self, agent):
        def may_update(stage):
            agent.device.world.set(step=1)
            return True

        agent.hooks["may_update"] = may_update

    def booted(self, device):
        Update.booted(self, device)
        if trial.status(device.root + "/slots")["job"] == "job/1" and not device.world["step"]:
            device.fail("(d) went back without asking the application")

    def floor(self, device):
        return trial.status(device.root + "/slots")["floor"]

    def expected(self, good):
        return ("confirmed", "1.0.0") if good else ("rolled_back", "2.0.0")

    def true(self, device, details):
        status = trial.status(device.root + "/slots")
        good = device.world["status"] == "SUCCEEDED"
        state, version = self.expected(good)
        if status["state"] != state and (good or status["job"] == "job/1"):
            device.fail("(e) %s, but %s" % (device.world["status"], status["state"]))
        if details.get("version", version) != version or device.ran != version:
            device.fail("(e) %s, %s, but %s runs" % (device.world["status"], details, device.ran))

    def end(self, device, strict):
        Scenario.end(self, device, strict)
        # The version that was left, or could not prove itself, is still complete.
        both = trial.filled(device.root + "/slots", "a") and trial.filled(device.root + "/slots", "b")
        if strict and not both:
            raise Problem("(b) one of the versions is gone")
        if strict and compat.read_file(device.root + "/agent.json", 999) != CONFIGURATION:
            raise Problem("(b) the configuration is not what it was")


class GoBackToBad(GoBack):
    """What is gone back to damages the configuration and crashes: the version that was left comes back, and it, too."""

    old = {"app.py": (BREAKS + CRASH).encode(), "lib/part.py": part("1.0.0")}
    new = {"app.py": app("2.0.0", 1100), "lib/part.py": part("2.0.0"), "lib/new.py": b""}
    wanted = "FAILED"
    because = "broken"


SCENARIOS = {"rollback-job": GoBack, "rollback-job-bad": GoBackToBad}
