# SPDX-License-Identifier: Apache-2.0
"""Makes the cases of a scenario and judges them. A case's id says all that is needed to play it again:

    update/37.bits            power fails in operation 37, leaving a random subset of its bits
    update/37.bits/12.half    then again in operation 12 of the recovery, half of an erase done
    update/37.eio             operation 37 fails and nothing else; 37.eio+ and all after it until the next power-on
    update/37/slots/b.json:17^255    power fails before operation 37, and byte 17 of a record decays
    update/storm-4711         up to eight cuts in a row, drawn from this seed

The run is the same each time, so the flash at a cut is made from the log of the clean run instead of running up to it.
"""

import gc
import hashlib

import vfs

from edgeagent import compat
from hil.cuts.board import device as devices
from hil.cuts.board.flash import BLOCK, FAULTS, TEARS, Flash, apply, number, tears
from hil.cuts.board.scenarios import SCENARIOS

PLACE = "/flash"
STORM_CUTS = 8
SNAPSHOTS = 8  # moments of a run at which records decay
PATTERNS = (1, 255)


class Result:
    """cases: tried; states: distinct ones among them, the others were known to end the same. bad: [(id, problem)]."""

    def __init__(self):
        self.cases = 0
        self.states = 0
        self.cuts = 0
        self.bad = []


class Rig:
    """One scenario and its clean run: base is the flash as it left the factory, log all operations of the run."""

    def __init__(self, name, kind=None):
        self.name = name
        self.scenario = (kind or SCENARIOS[name])()
        self.seen = set()
        flash = Flash(bytearray(b"\xff" * (self.scenario.blocks * BLOCK)))
        vfs.VfsLfs2.mkfs(flash, progsize=self.scenario.program)
        self.mount(flash)
        try:
            self.scenario.factory(PLACE)
        finally:
            vfs.umount(PLACE)
        self.base = bytes(flash.data)
        self.log = []
        self.last = self.run(bytearray(self.base), None, self.log).world.facts

    def mount(self, flash):
        # Without the times of files, which would make each run another one.
        vfs.mount(vfs.VfsLfs2(flash, progsize=self.scenario.program, mtime=False), PLACE)

    def run(self, data, facts, log=None, fault=None, strict=True, seed=""):
        """Power on and go on to the outcome, or to the cut. fault: (operation, kind, does it stay). strict: True if the
        outcome is certain, None if a record has decayed.

        Returns the device; its flash says whether it was cut. Raises Problem.
        """
        world = devices.World(facts)
        flash = Flash(data, world.mark)
        flash.seed = seed
        flash.log = log
        if fault:
            flash.fault_at, flash.fault, flash.stuck = fault
        made = devices.Device(PLACE, self.scenario, world, flash)
        made.strict = bool(strict)
        made.decayed = strict is None
        try:
            self.mount(flash)
        except OSError as error:
            raise devices.Problem("(a) the file system is lost: %s" % error)
        try:
            if self.scenario.power_on(made):
                self.scenario.end(made, strict)
        except SystemExit:
            if made.problem:
                raise devices.Problem(made.problem)
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

    def known(self, data, facts):
        """True if this very state was judged before."""
        key = hashlib.sha256(data)
        key.update(repr(sorted(facts.items())).encode())
        key = key.digest()
        if key in self.seen:
            return True
        self.seen.add(key)
        return False

    def single(self, case, log=None):
        data, facts = self.torn(case)
        self.run(data, facts, log)

    def double(self, case, second, log=None):
        """second: "12.half". log: of the recovery from the first cut."""
        if log is None:
            log = []
            self.single(case, log)
        data, facts = self.torn(case)
        j, _, tear = second.partition(".")
        for operation in log[: int(j)]:
            apply(data, operation)
        apply(data, log[int(j)], tear, self.name + case + second)
        self.run(data, log[int(j)][2])

    def fault(self, case):
        k, _, kind = case.partition(".")
        stuck = kind[-1] == "+"
        data = bytearray(self.base)
        facts = None
        world = None
        try:
            world = self.run(data, None, None, (int(k), kind.rstrip("+"), stuck), False).world
        except devices.Problem as problem:
            # A flash that fails may keep it from its outcome, until it is switched off and on.
            if str(problem)[:3] == "(c)" or (str(problem)[:3] not in ("(d)", "(a)") and not stuck):
                raise
            world = devices.Device.current.world
        facts = world.facts
        self.run(data, facts, None, None, False)

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
        self.run(data, facts or self.last, None, None, None)

    def alike(self, case):
        """Raises Problem unless a device that is really cut has the flash and the world that are made from the log."""
        k, _, tear = case.partition(".")
        data = bytearray(self.base)
        made = self.run(data, None, None, (int(k), tear, False), True, self.name + case)
        if (bytes(data), made.world.facts) != (bytes(self.torn(case)[0]), self.torn(case)[1]):
            raise devices.Problem("the log does not tell what happens")

    def storm(self, seed, result=None):
        data = bytearray(self.base)
        facts = None
        for cut in range(STORM_CUTS):
            text = "%s/%s/%d" % (self.name, seed, cut)
            fault = number(text + "k", len(self.log) * 3 // 4), TEARS[number(text + "t", len(TEARS))], False
            made = self.run(data, facts, None, fault, False, text)
            if not made.flash.dead:
                return
            if result:
                result.cuts += 1
            facts = made.world.facts
        self.run(data, facts, None, None, False)

    def play(self, case, result=None):
        """One case by its id without the scenario's name. Raises Problem."""
        if case[:6] == "storm-":
            return self.storm(case[6:], result)
        if case[:5] == "live-":
            return self.alike(case[5:])
        first, _, second = case.partition("/")
        if "^" in second:
            return self.flip(case)
        if second:
            return self.double(first, second)
        if first.partition(".")[2].rstrip("+") in FAULTS:
            return self.fault(first)
        return self.single(first)

    # --- many cases

    def sweep(self, kind, part, parts, report, limit=None):
        """kind: "cut", "double", "fault", "flip", "alike" or "storm" (then part and parts are the seeds, from and to).

        report(result): called after every case. limit: stop after so many bad ones.
        """
        if kind == "storm":
            return sweep_all(self, ["storm-%d" % seed for seed in range(part, parts)], report, limit)
        if kind == "alike":
            return sweep_all(self, ["live-" + case for case in self.singles(part, parts)], report, limit)
        if kind == "fault":
            return sweep_all(self, self.faults(part, parts), report, limit)
        if kind == "flip":
            return sweep_all(self, self.flips(part, parts), report, limit)
        result = Result()
        for case in self.singles(part, parts):
            data, facts = self.torn(case)
            if self.known(data, facts):
                result.cases += kind == "cut"
                continue
            log = []
            if kind == "cut":
                result.states += 1
                over = judge(self, case, result, report, limit, self.run, data, facts)
            else:
                over = self._doubles(case, log, result, report, limit)
            if over:
                break
        return result

    def _doubles(self, case, log, result, report, limit):
        try:
            self.single(case, log)
        except devices.Problem:
            return False  # told by the single cuts
        data, _ = self.torn(case)
        for j, operation in enumerate(log):
            kinds = tears(operation)
            for tear in kinds if self.every else (kinds[(j + len(case)) % len(kinds)],):
                copy = bytearray(data)
                second = "%d.%s" % (j, tear)
                apply(copy, operation, tear, self.name + case + second)
                if self.known(copy, operation[2]):
                    result.cases += 1
                    continue
                result.states += 1
                if judge(self, case + "/" + second, result, report, limit, self.run, copy, operation[2]):
                    return True
            apply(data, operation)
        gc.collect()
        return False

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
        result.states += 1
        if judge(rig, case, result, report, limit, rig.play, case, result):
            break
    return result
