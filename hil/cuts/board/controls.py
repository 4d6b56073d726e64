# SPDX-License-Identifier: Apache-2.0
"""Careless strategies that other updaters use. The harness has to find them unsafe, else it proves nothing.

Each does the whole update in the old version; what it then says of itself is as if all had gone well.
"""

import os

from edgeagent import compat
from edgeagent.jobs import trust
from edgeagent.ota import trial
from edgeagent.ota.slots import Slots
from hil.cuts.board.content import pad, put_state, write
from hil.cuts.board.device import OWN
from hil.cuts.board.scenarios import Update, app, part


class Careless(Update):
    plain = True
    old = {"app.py": app("1.0.0", 900), "lib/part.py": part("1.0.0"), "more.bin": pad("1", 3000), "one.bin": b"1"}
    new = {"app.py": app("2.0.0", 1100), "lib/part.py": part("2.0.0"), "more.bin": pad("2", 3000), "one.bin": b"2"}

    def register(self, agent):
        async def run(job):
            root = agent.port.slots_dir
            if trial.status(root)["job"] != OWN:
                self.install(root)
                agent.device.alive()
                raise SystemExit("reset")
            if trial.status(root)["state"] == "trial":
                trial.confirm(root)
            trust.keep_floor(agent.config.trust, 1)
            agent.device.world.set(heard=1)
            return {"version": "2.0.0"}

        agent.handlers.register("ota", run, True)

    def settle(self, root, active):
        put_state(root, active=active, state="confirmed", version="2.0.0", job=OWN, floor=1)


class InPlace(Careless):
    """Overwrites the files of the running version, one by one."""

    def install(self, root):
        for name in sorted(self.new):
            write(root + "/a/" + name, self.new[name])
        self.settle(root, "a")


class DeleteThenRename(Careless):
    """Downloads aside, deletes the running version's folder, then renames the new one in its place."""

    def install(self, root):
        aside = root + "/next"
        compat.remove_tree(aside)
        for name in sorted(self.new):
            write(aside + "/" + name, self.new[name])
        compat.remove_tree(root + "/a")
        os.rename(aside, root + "/a")
        self.settle(root, "a")


class PointerFirst(Careless):
    """Points to the other slot before its files are there."""

    def install(self, root):
        slots = Slots(root)
        slots.prepare("aa")
        self.settle(root, "b")
        for name in sorted(self.new):
            write(root + "/b/" + name, self.new[name])


SCENARIOS = {"in-place": InPlace, "delete-then-rename": DeleteThenRename, "pointer-first": PointerFirst}
