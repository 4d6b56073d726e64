# SPDX-License-Identifier: Apache-2.0
"""The device's own identity, changed again and again."""

import binascii

from edgeagent.identity import Identity
from hil.cuts.board.content import names, sha
from hil.cuts.board.device import Problem
from hil.cuts.board.scenarios import Scenario


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


SCENARIOS = {"identity": Keys}
