# SPDX-License-Identifier: Apache-2.0
"""Jobs beside updates: the configuration, the keys that sign updates, and one of the application's own."""

import binascii
import json

from edgeagent import compat
from edgeagent.jobs import config as config_job
from edgeagent.jobs import trust as trust_job
from edgeagent.ota import verify
from hil.cuts.board.content import envelope, public_key, sha, trust, write
from hil.cuts.board.scenarios import Scenario

assert config_job and trust_job  # loaded once


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


class Once(Scenario):
    """A job of the application that cannot go on after a restart: it is begun once."""

    document = {"operation": "once"}
    records = ("state/job.json",)

    def register(self, agent):
        async def run(job):
            world = agent.device.world
            if world["step"]:
                agent.device.fail("(e) begun again")
            world.set(step=1)
            job.checkpoint(done=1)
            return {}

        agent.handlers.register("once", run)

    def true(self, device, details):
        if device.world["status"] == "SUCCEEDED" and not device.world["step"]:
            device.fail("(e) SUCCEEDED without having run")

    def end(self, device, strict):
        interrupted = device.world["boots"] > 1 and "interrupted by a reset" in device.world["reason"]
        Scenario.end(self, device, strict and not interrupted)


SCENARIOS = {"config": Config, "trust": Trust, "steps": Steps, "once": Once}
