# SPDX-License-Identifier: Apache-2.0
"""Makes the cases of a scenario and judges them. A case's id says all that is needed to play it again:

    update/37.bits            power fails in operation 37, leaving a random subset of its bits
    update/37.bits/12.half    then again in operation 12 of the recovery, half of an erase done
    update/137.read           read 137 of the flash fails
    update/12.flip0           the file that is opened for reading as number 12 is read with a bit flipped
    update/37.eio             operation 37 fails and nothing else; 37.eio+ and all after it until the next power-on
    update/37/slots/b.json:17^255    power fails before operation 37, and byte 17 of a record decays
    update/storm-4711         eight cuts in a row, drawn from this seed (storms.py)

The run is the same each time, so the flash at a cut is made from the log of the clean run instead of running up to it.
"""

import hashlib

import vfs

from edgeagent import compat
from hil.cuts.board import device as devices
from hil.cuts.board.flash import BLOCK, FAULTS, TEARS, Flash, apply, tears
from hil.cuts.board.known import Known, Life
from hil.cuts.board.reads import FILES, Files, Misread
from hil.cuts.board.storms import storm
from hil.cuts.board.view import View

PLACE = "/flash"
SNAPSHOTS = 8  # moments of a run at which records decay
PATTERNS = (1, 255)
NODES = 8000  # of what is known: it would fill the heap


class Result:
    """cases: tried; states: those that had to be played to the outcome, the others were known to end the same.
    bad: [(id, problem)].
    """

    def __init__(self):
        self.cases = 0
        self.states = 0
        self.cuts = 0
        self.bad = []


class Rig:
    """One scenario and its clean run: base is the flash as it left the factory, log all operations of the run."""

    def __init__(self, name, scenario):
        """scenario: a class."""
        self.name = name
        self.scenario = scenario()
        self.known = Known()
        self.nodes = NODES
        self.judged = 0
        self.path = []  # of the last storm
        self.viewed = True  # through a View
        flash = Flash(bytearray(b"\xff" * (self.scenario.blocks * BLOCK)))
        vfs.VfsLfs2.mkfs(self.scenario.drive(flash), progsize=self.scenario.program)
        self.mount(flash)
        try:
            self.scenario.factory(PLACE)
        finally:
            vfs.umount(PLACE)
        self.base = bytes(flash.data)
        self.work = bytearray(self.base)
        self.log = []
        self.last = self.run(bytearray(self.base), None, self.log).world.facts

    def mount(self, flash, above=lambda real, flash: real):
        """above: what goes between littlefs and the device."""
        # Without the times of files, which would make each run another one.
        real = vfs.VfsLfs2(self.scenario.drive(flash), progsize=self.scenario.program, mtime=False)
        vfs.mount(above(real, flash), PLACE)

    def run(self, data, facts, log=None, fault=None, strict=True, seed=""):
        """Power on and go on to the outcome, or to the cut. fault: (operation, kind, does it stay), for kind "read" and
        those of reads.FILES the number of a read or file instead. strict: True if the outcome is certain, None if a
        record has decayed.

        Returns the device; its flash says whether it was cut. Raises Problem.
        """
        world = devices.World(facts)
        at, kind, stuck = fault or (-1, "", False)

        def above(real, flash):
            if self.viewed and (not fault or kind in TEARS):
                return View(real, flash)
            return Files(real, flash, at, kind, seed) if kind in FILES else real

        flash = Misread(data, world.mark, at) if kind == "read" else Flash(data, world.mark)
        if kind != "read" and kind not in FILES:
            flash.fault_at, flash.fault, flash.stuck = at, kind, stuck
        self.flash = flash
        flash.seed = seed
        flash.log = log
        made = devices.Device(PLACE, self.scenario, world, flash)
        made.strict = bool(strict)
        made.decayed = strict is None
        try:
            self.mount(flash, above)
        except OSError as error:
            raise devices.Problem("(a) the file system is lost: %s" % error)
        try:
            if self.scenario.power_on(made):
                if flash.view:
                    flash.view.forget()
                flash.watched = True
                self.scenario.end(made, strict)
        except SystemExit:
            pass
        except Exception:
            if not flash.dead:  # what a dead device's program makes of failing reads does not happen
                raise
        finally:
            vfs.umount(PLACE)
        if made.problem:
            raise devices.Problem(made.problem)
        return made

    # --- kinds of cases; each yields ids

    def singles(self, part, parts):
        for k in range(part, len(self.log), parts):
            for tear in tears(self.log[k]):
                yield "%d.%s" % (k, tear)

    def faults(self, part, parts):
        for k in range(part, len(self.log), parts):
            for kind in sorted(FAULTS):
                yield "%d.%s" % (k, kind)
            yield "%d.eio+" % k
            yield "%d.enospc+" % k

    def reads(self, part, parts):
        made = self.run(bytearray(self.base), None, None, (-1, "read", False))
        for k in range(part, made.flash.reads, parts):
            yield "%d.read" % k

    def misreads(self, part, parts):
        made = self.run(bytearray(self.base), None, None, (-1, "short", False))
        for k in range(part, made.flash.view.opened, parts):
            for kind in FILES:
                yield "%d.%s" % (k, kind)

    def moments(self):
        """Operations at which records decay: spread over the run, and its end."""
        count = len(self.log)
        return sorted(set([count * n // SNAPSHOTS for n in range(1, SNAPSHOTS)] + [count]))

    def flips(self, part, parts):
        for moment in self.moments():
            data = self.at(moment)[0]
            sizes = {}
            self.mount(Flash(data))
            for name in self.scenario.records:
                sizes[name] = len(compat.read_file(PLACE + "/" + name, 8192) or b"")
            found = self.scenario.decays(sizes)
            vfs.umount(PLACE)
            for name in found:
                for place in range(part, sizes[name], parts):
                    for pattern in PATTERNS:
                        yield "%d/%s:%d^%d" % (moment, name, place, pattern)

    def cases(self, kind, part, parts):
        if kind == "storm":
            return ["storm-%d" % seed for seed in range(part, parts)]
        if kind == "alike":
            return ["live-" + case for case in self.singles(part, parts)]
        made = {"fault": self.faults, "read": self.reads, "misread": self.misreads, "flip": self.flips}
        return made[kind](part, parts)

    # --- one case

    def at(self, k):
        """(flash before operation k, facts of the world then)."""
        if not hasattr(self, "_place") or self._place > k:
            self._place = 0
            self._data = bytearray(self.base)
        while self._place < k:
            apply(self._data, self.log[self._place])
            self._place += 1
        return bytearray(self._data), (self.log[k][2] if k < len(self.log) else None)

    def torn(self, case):
        """The flash and the world after the single cut `case`."""
        k, _, tear = case.partition(".")
        data, facts = self.at(int(k))
        apply(data, self.log[int(k)], tear, self.name + case)
        return data, facts

    def life(self, data, facts, strict=True, keep=False):
        """Power on and go on to the outcome, unless it is known. data: stays as it is. keep: with its log.

        Returns (Life, True if it had to be played).
        """
        world = self.known.world(facts, strict)
        if self.known.nodes > self.nodes:
            self.known = Known()
        life = self.known.find(data, world)
        if life and not keep:
            return life, False
        self.work[:] = data
        log = [] if keep else None
        problem = None
        try:
            self.run(self.work, facts, log, None, strict)
        except devices.Problem as error:
            problem = str(error)
        except Exception as error:
            problem = compat.traceback_text(error, 600)
        self.judged += 1
        self.known.learn(data, world, self.flash.read_first(), Life(problem, self.flash.count, None))
        return Life(problem, self.flash.count, log), True

    def judge(self, data, facts, strict=True):
        """Raises Problem."""
        life, _ = self.life(data, facts, strict)
        if life.problem:
            raise devices.Problem(life.problem)

    def single(self, case):
        data, facts = self.torn(case)
        self.judge(data, facts)

    def double(self, case, second):
        """second: "12.half"."""
        data, facts = self.torn(case)
        log = self.life(data, facts, True, True)[0].log
        j, _, tear = second.partition(".")
        for operation in log[: int(j)]:
            apply(data, operation)
        apply(data, log[int(j)], tear, self.name + case + second)
        self.judge(data, log[int(j)][2])

    def fault(self, case):
        k, _, kind = case.partition(".")
        stuck = kind[-1] == "+"
        data = bytearray(self.base)
        try:
            fault = int(k), kind.rstrip("+"), stuck
            world = self.run(data, None, None, fault, False, self.name + case).world
        except devices.Problem as problem:
            # A flash that fails may keep it from its outcome, until it is switched off and on.
            if str(problem)[:3] == "(c)" or (str(problem)[:3] not in ("(d)", "(a)") and not stuck):
                raise
            world = devices.Device.current.world
        self.judge(data, world.facts, False)

    def flip(self, case):
        k, _, rest = case.partition("/")
        name, _, rest = rest.rpartition(":")
        place, _, pattern = rest.partition("^")
        data, facts = self.at(int(k))
        self.mount(Flash(data))
        raw = bytearray(compat.read_file(PLACE + "/" + name, 8192))
        raw[int(place)] ^= int(pattern)
        with open(PLACE + "/" + name, "wb") as f:
            f.write(raw)
        vfs.umount(PLACE)
        self.judge(data, facts or self.last, None)

    def alike(self, case):
        """Raises Problem unless a device that is really cut, with nothing above its littlefs, has the flash and the
        world that are made from the log.
        """
        self.viewed = False
        k, _, tear = case.partition(".")
        data = bytearray(self.base)
        made = self.run(data, None, None, (int(k), tear, False), True, self.name + case)
        if (bytes(data), made.world.facts) != (bytes(self.torn(case)[0]), self.torn(case)[1]):
            raise devices.Problem("the log does not tell what happens")

    def play(self, case, result=None):
        """One case by its id without the scenario's name. Raises Problem."""
        if case[:6] == "storm-":
            return storm(self, int(case[6:]), result)
        if case[:5] == "live-":
            return self.alike(case[5:])
        first, _, second = case.partition("/")
        if "^" in second:
            return self.flip(case)
        if second:
            return self.double(first, second)
        kind = first.partition(".")[2].rstrip("+")
        if kind in FAULTS or kind in FILES or kind == "read":
            return self.fault(first)
        return self.single(first)

    # --- many cases

    def sweep(self, kind, part, parts, report, limit=None):
        """kind: "cut", "double", "fault", "read", "misread", "flip", "alike" or "storm", for which part and parts are
        the seeds, from and to.

        report(result): called after every case. limit: stop after so many bad ones.
        """
        if kind not in ("cut", "double"):
            return sweep_all(self, self.cases(kind, part, parts), report, limit)
        result = Result()
        same = set()
        for case in self.singles(part, parts):
            data, facts = self.torn(case)
            if kind == "cut":
                over = self._judge(case, data, facts, result, report, limit)
            else:
                key = hashlib.sha256(data).digest() + self.known.world(facts, True).encode()
                if key in same:
                    continue
                same.add(key)
                over = self._doubles(case, data, facts, result, report, limit)
            if over:
                break
        return result

    def _doubles(self, case, data, facts, result, report, limit):
        first = self.life(data, facts, True, True)[0]
        if first.problem:
            return False  # told by the single cuts
        for j, operation in enumerate(first.log):
            kinds = tears(operation)
            for tear in kinds if self.every else (kinds[(j + len(case)) % len(kinds)],):
                copy = bytearray(data)
                second = "%d.%s" % (j, tear)
                apply(copy, operation, tear, self.name + case + second)
                if self._judge(case + "/" + second, copy, operation[2], result, report, limit):
                    return True
            apply(data, operation)
        return False

    def _judge(self, case, data, facts, result, report, limit):
        life, new = self.life(data, facts)
        result.cases += 1
        result.states += new
        if life.problem:
            result.bad.append((self.name + "/" + case, life.problem[:300]))
        report(result)
        return limit and len(result.bad) >= limit

    every = False  # all tears of a second cut, instead of one of them at each operation


def judge(rig, case, result, report, limit, act, *arguments):
    """Play one case; True if that were enough bad ones."""
    result.cases += 1
    try:
        act(*arguments)
    except devices.Problem as problem:
        result.bad.append((rig.name + "/" + case, str(problem)[:300]))
    except Exception as error:
        result.bad.append((rig.name + "/" + case, compat.traceback_text(error, 600)))
    report(result)
    return limit and len(result.bad) >= limit


def sweep_all(rig, cases, report, limit):
    result = Result()
    for case in cases:
        if judge(rig, case, result, report, limit, rig.play, case, result):
            break
    result.states = rig.judged
    return result
