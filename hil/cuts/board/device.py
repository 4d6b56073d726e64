# SPDX-License-Identifier: Apache-2.0
"""A device of which the power may go at any time, and the world around it, which goes on.

It boots as boards/common/main.py does, through launch.run, which imports the real files of the slot; the application
starts the real job runner with the real journal and handlers. Stand-ins: MQTT, the mathematics of signatures, time.
"""

import asyncio
import hashlib
import sys

from edgeagent import agent as real
from edgeagent import compat, log
from edgeagent.attributes import Attributes
from edgeagent.errors import Refused
from edgeagent.jobs import document, ota, registry, runner
from edgeagent.ota import guard, launch, manifest, safety, slots, store, trial, verify, writer

if compat.MICROPYTHON:
    import vfs

assert document and safety and slots and manifest and writer  # loaded once, not anew in each of many thousand boots

OWN = "job/1/1"  # the one execution, in the state
TURNS = 4000  # of the event loop in one boot
_sleep = asyncio.sleep


def prepare():
    """Take out of the agent what costs time and decides nothing here."""
    for module in (runner, ota, document):
        module.unload = lambda *_: None
    launch.unload = lambda *_: None
    asyncio.sleep = lambda seconds=0: _sleep(0)
    log.configure(100)
    registry.unload = lambda *_: None

    async def cheap(algorithm, public, digest, signature):
        return signature == sign(public, digest)

    verify.verify = cheap
    guard.clock = Late


class Late:
    """The clock of guard.py: its deadline is over as soon as it looks."""

    @staticmethod
    def ticks():
        return 0

    @staticmethod
    def elapsed_ms(start):
        return 1 << 30


def sign(public, digest):
    """The stand-in for a signature."""
    return hashlib.sha256(public + digest).digest()


class World:
    """What is outside of the device, and what an observer remembers. `facts` is replaced, never changed in place."""

    START = {
        "boots": 0,
        "status": "QUEUED",
        "reason": "",
        "floor": 0,
        "step": 0,
        "reports": 0,
        "trials": 0,
        "fetched": 0,
        "heard": 0,  # of the new version on trial
    }

    def __init__(self, facts=None):
        self.facts = facts or World.START

    def set(self, **changes):
        facts = dict(self.facts)
        facts.update(changes)
        self.facts = facts

    def mark(self):
        return self.facts

    def __getitem__(self, name):
        return self.facts[name]


class Problem(Exception):
    """A promise was broken."""


class Port:
    """What handlers and the runner use of a port."""

    pem = not compat.MICROPYTHON

    def __init__(self, device):
        self.device = device
        self.state_dir = device.root + "/state"
        self.slots_dir = device.root + "/slots"

    def boot_id(self):
        return "boot %d" % self.device.world["boots"]

    def reset_cause(self):
        return "power-on"

    def reset(self):
        scenario = self.device.scenario
        if scenario.restarts or self.device.ran != scenario.before:
            raise SystemExit("reset")

    def facts(self):
        return dict(FACTS)


FACTS = {"board": "TEST", "chip": "c", "runtime": "micropython 1.29.0", "port": "test", "thing": "t", "version": "1"}
if not compat.MICROPYTHON:
    FACTS["runtime"] = "cpython 3.11"


class Settings:
    """The members of a Config that are used here."""

    device_configuration: "dict[str, str]" = {}
    confirm_within = 60
    update_window = None
    attributes: "dict[str, str]" = {}


class Agent:
    """What handlers and the runner use of an Agent."""

    def __init__(self, device, version):
        self.device = device
        self.port = Port(device)
        self.version = version
        self.thing_name = "t"
        self.config = Settings()
        self.config.trust = device.root + "/trust.json"
        self.config_path = device.root + "/agent.json"
        self.attributes = Attributes()
        self.hooks: "dict[str, object]" = {}
        self.handlers = registry.Handlers()
        self.client = self.requests = Service(device)
        self.connected = asyncio.Event()
        self.connected.set()
        device.scenario.register(self)

    def facts(self):
        facts = dict(FACTS)
        facts["agent"] = self.device.agent
        return facts

    def configure(self, config):
        self.config.attributes = config.attributes

    async def healthy(self):
        return True, ""

    ask = real.Agent.ask


class Service:
    """The Jobs service with one execution. It never loses a message; a dead device gets no answer."""

    connected = True

    def __init__(self, device):
        self.device = device
        self.oversized = []

    def on(self, topic, handler):
        return topic

    async def subscribe(self, filters):
        self.device.alive()

    async def call(self, topic, body):
        self.device.alive()
        world = self.device.world
        step = (body.get("statusDetails") or {}).get("step")
        if step and step == self.device.scenario.ended and world["status"] == "IN_PROGRESS":
            world.set(status="CANCELED", reports=world["reports"] + 1)
        status = world["status"]
        over = status not in ("QUEUED", "IN_PROGRESS")
        if topic.endswith("/update"):
            wanted = body["status"]
            if over:
                if wanted not in ("IN_PROGRESS", status):
                    self.device.fail("(e) %s after %s" % (wanted, status))
                raise Refused("InvalidStateTransition", "it is over")
            details = body.get("statusDetails") or {}
            world.set(status=wanted, reason=details.get("reason", world["reason"]))
            if step == "trial":
                world.set(heard=1)
            if wanted != "IN_PROGRESS":
                world.set(reports=world["reports"] + 1)
                self.device.watch(self.device.scenario.reported, details)
            return {}
        if over:
            if topic.endswith("start-next"):
                return {}
            return {"execution": self._execution(status)}
        if topic.endswith("start-next"):
            world.set(status="IN_PROGRESS")
        return {"execution": self._execution(world["status"])}

    def _execution(self, status):
        return {
            "jobId": "job",
            "executionNumber": 1,
            "status": status,
            "queuedAt": 1,
            "jobDocument": self.device.scenario.document,
        }


class Device:
    """root: folder in which the device's files are. flash: has `dead`; None for one that cannot lose its power."""

    current: "Device"
    agent = ""  # version of the agent that runs, where there are several

    def __init__(self, root, scenario, world, flash=None):
        self.root = root
        self.scenario = scenario
        self.world = world
        self.flash = flash
        self.strict = True  # nothing but cuts of the power has happened, and few
        self.decayed = False  # a record has lost a byte
        self.problem = ""
        self.idle = False
        self.ran = ""  # version whose application was started in this boot; "bare" for the agent without one
        Device.current = self

    def alive(self):
        """Nothing happens any more on a device that lost its power."""
        if self.flash and self.flash.dead:
            raise SystemExit("off")

    def fail(self, problem):
        """A broken promise ends the case. What a dead device's program makes of failing reads does not happen."""
        if not (self.flash and self.flash.dead):
            self.problem = self.problem or problem
        raise SystemExit("problem")

    def watch(self, look, *more):
        """Have the scenario look at the device. What it reads for that is not read by the device."""
        if self.flash:
            self.flash.watched = True
        look(self, *more)
        if self.flash:
            self.flash.watched = False

    def boot(self):
        """From power on to the reset, or until there is nothing left to do."""
        self.world.set(boots=self.world["boots"] + 1)
        self.ran = ""
        trial.Running.slot = None
        if not self.scenario.start(self):
            return
        if hasattr(asyncio, "new_event_loop") and compat.MICROPYTHON:
            asyncio.new_event_loop()
        path = list(sys.path)
        try:
            self.launch("power-on")
        except SystemExit:
            pass
        finally:
            sys.path[:] = path
            if compat.MICROPYTHON:
                try:
                    vfs.umount(store.MOUNT)
                except OSError:
                    pass  # no slot was mounted
            for name in ("app", "lib", "lib.part"):
                sys.modules.pop(name, None)

    def launch(self, cause):
        """What edgeagent/trampoline.py does."""
        root = self.root + "/slots"
        if not launch.run(root, "app", self.bare, cause):
            launch.failed(root, "the application ended by itself")

    def bare(self):
        self.start("bare")

    def start(self, version):
        """What main() of every application here does."""
        self.ran = version
        self.watch(self.scenario.booted)
        asyncio.run(self.live(version))

    async def live(self, version):
        agent = Agent(self, version)
        made = runner.Runner(agent)
        await made.attach()
        task = asyncio.create_task(made.run())
        for _ in range(TURNS):
            await _sleep(0)
            self.alive()
            if made._record is None and made._job is None and self.world["reports"]:
                break
        else:
            self.fail("(d) hangs: %s, journal %s" % (self.world["status"], made._record))
        task.cancel()
        await guard.watch(agent)  # ends a trial of which the job is over
        self.idle = True
        raise SystemExit("idle")

    def converge(self):
        """Power on until the job has its outcome and nothing is left to do. False if the power went before."""
        silent = 0
        boots = self.scenario.boots
        for _ in range(boots):
            if self.flash and self.flash.view:
                self.flash.view.forget()
            try:
                self.boot()
            except Exception:
                if not (self.flash and (self.flash.dead or self.flash.misreads)):
                    raise
                # After a read that went wrong: main.py restarts the device, whatever the exception is.
            silent = 0 if self.ran else silent + 1
            if self.flash and self.flash.dead:
                return False
            if self.problem:
                raise Problem(self.problem)
            if self.idle:
                return True
        if silent > boots // 2:
            raise Problem("(c) the agent has not run in the last %d boots" % silent)
        raise Problem("(d) no outcome after %d boots: %s" % (boots, self.world.facts))


def application(version):
    """Called by main() of the applications in the slots."""
    Device.current.start(version)
