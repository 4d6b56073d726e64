# SPDX-License-Identifier: Apache-2.0
"""Updates of the agent itself: power on is boards/common/main.py, the very files, with the agents on the flash.

Those are stand-ins of three files, which tell each other's version and then start the real job runner, with the real
`ota` handler, in the application. Only `machine` is not real, and where the flash is mounted.
"""

import sys

from edgeagent import compat
from edgeagent.ota import generations, trial
from hil.cuts.board import device as devices
from hil.cuts.board.content import contents, put_state, seal_slot, write_all
from hil.cuts.board.device import Problem
from hil.cuts.board.scenarios import Scenario, Update, with_copies

PLACE = "/flash"
STAGE_0 = "boards/common/"
RUN = """from edgeagent import VERSION
from edgeagent.part import PART
from hil.cuts.board import agents


def run(root, cause, wait):
    agents.started(VERSION if PART == VERSION else "mixed", root, cause, wait)
"""
REAL = generations.Generations.running


def agent(version, **changes):
    """Files of an agent. changes: to the texts of its modules; None leaves one out."""
    texts = {"__init__": 'VERSION = "%s"\n' % version, "part": 'PART = "%s"\n' % version, "trampoline": RUN}
    texts.update(changes)
    return {"edgeagent/%s.py" % name: texts[name].encode() for name in texts if texts[name] is not None}


class Machine:
    """`machine` as main.py uses it."""

    PWRON_RESET, WDT_RESET = 1, 3
    cause = PWRON_RESET

    class WDT:
        def __init__(self, timeout):
            pass

        def feed(self):
            pass

    @staticmethod
    def reset():
        raise SystemExit("reset")

    @staticmethod
    def reset_cause():
        return Machine.cause


def stage_0():
    """The programs of main.py and stage0.py, for a flash that is mounted elsewhere, and without their waits."""

    def program(name, *changes):
        for root in (compat.__file__.rsplit("/", 2)[0], __file__.rsplit("/", 4)[0]):  # a changed one comes first
            if compat.exists(root + "/" + STAGE_0 + name):
                break
        with open(root + "/" + STAGE_0 + name) as f:
            text = f.read()
        for old, new in changes:
            if old not in text:
                raise ValueError(name + " has no " + old)
            text = text.replace(old, new)
        return compile(text, name, "exec")

    quiet = ("sys.print_exception(error)\n", "pass\n")
    return (
        program(
            "main.py",
            ('    with open("/stage0.py") as f:\n        exec(f.read(), names)\n', "    exec(STAGE_0, names)\n"),
            ("    gc.threshold(4096)", "    pass"),
            ("gc.collect()", "pass"),  # of a heap that is full of what the harness remembers
            quiet,
        ),
        program(
            "stage0.py",
            ('ROOT = "/slots"', 'ROOT = "%s/slots"' % PLACE),
            ("DAMAGED_S = 30", "DAMAGED_S = 0"),
            quiet,
        ),
    )


def ours():
    """Take the modules called edgeagent out of what is loaded."""
    found = {}
    for name in list(sys.modules):
        if name.split(".")[0] == "edgeagent":
            found[name] = sys.modules.pop(name)
    return found


def hangs():
    """Called by an agent that hangs, until the watchdog restarts the device."""
    devices.Device.current.world.set(cause=Machine.WDT_RESET)
    raise SystemExit("watchdog")


def started(version, root, cause, wait):
    """Called by the agent that runs."""
    device = devices.Device.current
    device.generation = REAL(generations.Generations(root + "/agent"))
    ours()
    sys.modules.update(device.real)
    device.agent = version
    generations.Generations.running = lambda slots: device.generation or ""
    devices.Device.launch(device, cause)


class AgentUpdate(Update):
    """The first update of the agent; until then the factory's runs."""

    type = "agent"
    place = "/slots/agent"
    plain = True
    homes = ("slots/a/", "slots/agent/a/", "slots/agent/b/", "lib/")
    factory_agent = agent("1.0.0")
    new = agent("2.0.0")
    code = None
    blocks = 48
    records = ("state/job.json",) + tuple(
        ["slots/agent/" + name for name in ("state.json", "state.bak", "a.json", "b.json")]
    )

    def factory(self, root):
        Update.factory(self, root)
        write_all(root + "/lib", self.factory_agent)

    def power_on(self, device):
        AgentUpdate.code = AgentUpdate.code or stage_0()
        device.launch = lambda cause: self.stage_0(device)
        device.world.set(cause=Machine.PWRON_RESET)
        return device.converge()

    def stage_0(self, device):
        """What begins a boot instead of the agent that is loaded here."""
        device.agent = ""
        device.generation = None
        device.watch(self.tried)
        Machine.cause = device.world["cause"]
        device.world.set(cause=Machine.PWRON_RESET)
        device.real = ours()
        sys.modules["machine"] = Machine
        sys.path.insert(0, device.root + "/lib")
        try:
            exec(self.code[0], {"__name__": "__main__", "STAGE_0": self.code[1]})
        finally:
            ours()
            sys.modules.update(device.real)
            del sys.modules["machine"]  # the real one is built in
        device.fail("(a) main.py ended")

    def tried(self, device):
        """(e) Whatever decays: what was given up and reported is not tried again."""
        over = device.world["status"] == "FAILED" and (device.strict or device.decayed)
        if over and trial.status(device.root + self.place)["state"] == "trial":
            device.fail("(e) FAILED, and on trial again")

    versions = Scenario.versions  # of the application

    def agents(self):
        return {"1.0.0": self.factory_agent, "2.0.0": self.new}

    def running(self, device):
        Update.running(self, device)
        place = "/slots/agent/" + device.generation if device.generation else "/lib"
        if self.agents().get(device.agent) != contents(device.root + place):
            device.fail("(b) agent %s in %s is not whole" % (device.agent, place))
        if contents(device.root + "/lib") != self.factory_agent:
            device.fail("(b) the factory's agent was changed")
        before = trial.status(device.root + self.place).get("before")
        place = "%s%s/%s" % (device.root, self.place, before)
        # Where the factory's agent runs beside generations, stage 0 has passed over both.
        if before and device.generation and not (compat.exists(place) and contents(place) in self.whole()):
            device.fail("(b) what can be gone back to is not whole")

    def whole(self):
        """The agents that may be in a slot."""
        return list(self.agents().values())

    def runs(self, device):
        return device.agent

    def stays(self, device, strict):
        agent, before = device.agent, self.state(device)
        device.boot()
        if device.problem:
            raise Problem(device.problem)
        if device.agent != agent or self.state(device) != before:
            raise Problem("(d) the next boot is another one")

    def state(self, device):
        folder = device.root + self.place
        return compat.exists(folder) and contents(folder)

    def known(self, root):
        return with_copies(self.records + ("trust.json", "slots/crash.json", "slots/envelope"))


class AgentAgain(AgentUpdate):
    """The agent that runs is that of an update, and the other slot holds the one before."""

    factory_agent = agent("0.8.0")
    first = agent("1.0.0")
    stale = agent("0.9.0", gone="GONE = 1\n")

    def factory(self, root):
        AgentUpdate.factory(self, root)
        folder = root + self.place
        for slot, files, version, n in (("b", self.stale, "0.9.0", 1), ("a", self.first, "1.0.0", 4)):
            write_all("%s/%s" % (folder, slot), files)
            seal_slot(folder, slot, version, slot * 64, n)
        put_state(folder, active="a", before="b", state="confirmed", version="1.0.0", job="x/1", n=6)

    def agents(self):
        return {"1.0.0": self.first, "2.0.0": self.new}

    def whole(self):
        return [self.stale, self.first, self.new]


class AgentDecayed(AgentAgain):
    """The agent that should run does not load; the one before it does, and brings the next."""

    first = agent("1.0.0", part="raise ValueError('incompatible .mpy file')\n")
    stale = agent("0.9.0")
    before = "0.9.0"

    def agents(self):
        return {"0.9.0": self.stale, "2.0.0": self.new}


class AgentRaises(AgentAgain):
    """The new agent raises when it is imported."""

    new = agent("2.0.0", part="raise ValueError('incompatible .mpy file')\n")
    wanted = "FAILED"
    because = "incompatible"


class AgentHollow(AgentUpdate):
    """The new agent has no trampoline."""

    new = agent("2.0.0", trampoline=None)
    wanted = "FAILED"
    because = "no module named 'edgeagent.trampoline'"


class AgentHangs(AgentUpdate):
    """Reading the new agent does not end, as with a file that was cut short."""

    new = agent("2.0.0", part="from hil.cuts.board import agents\nagents.hangs()\n")
    wanted = "FAILED"
    because = "interrupted: "


class AgentEscapes(AgentAgain):
    """The new agent raises when it is started."""

    new = agent("2.0.0", trampoline="def run(root, cause, wait):\n    raise RuntimeError('lost its way')\n")
    wanted = "FAILED"
    because = "RuntimeError: lost its way"


class AgentsWorn(AgentAgain):
    """Both generations raise when they are started; the factory's agent brings the next."""

    before = "0.8.0"
    first = agent("1.0.0", trampoline=AgentEscapes.new["edgeagent/trampoline.py"].decode())
    stale = agent("0.9.0", trampoline=AgentEscapes.new["edgeagent/trampoline.py"].decode())

    def agents(self):
        return {"0.8.0": self.factory_agent, "2.0.0": self.new}


class AgentBack(AgentAgain):
    """The active agent has raised three times when it was started. By a job back to the one before, which runs."""

    document = {"operation": "rollback", "kind": "agent"}
    after = "1.0.0"
    raised = 0
    new = AgentEscapes.new

    def __init__(self):
        """No artifact."""

    def factory(self, root):
        AgentUpdate.factory(self, root)
        folder = root + self.place
        for slot, files, version in (("a", self.first, "1.0.0"), ("b", self.new, "2.0.0")):
            write_all("%s/%s" % (folder, slot), files)
            seal_slot(folder, slot, version, slot * 64, 0)
        put_state(folder, active="b", before="a", state="confirmed", version="2.0.0", job="x/1", fails=3)

    def register(self, agent):
        """The built-in handlers."""

    def needed(self):
        return 0


SCENARIOS = {
    "agent": AgentUpdate,
    "agent-again": AgentAgain,
    "agent-decayed": AgentDecayed,
    "agent-raises": AgentRaises,
    "agent-hollow": AgentHollow,
    "agent-hangs": AgentHangs,
    "agent-escapes": AgentEscapes,
    "agents-worn": AgentsWorn,
    "agent-back": AgentBack,
}
