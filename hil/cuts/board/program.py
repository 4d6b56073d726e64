# SPDX-License-Identifier: Apache-2.0
"""Runs in MicroPython: program.py TASK…, each a line of JSON; prints lines of JSON.

TASK: {"scenario", "kind", "part", "parts", "every", "limit", "nodes"} or {"replay": id}; with nodes -1 nothing that was
judged is remembered.
Lines: {"cases"} now and then; {"bad": id, "problem"}; last {"end": true, "cases", "states", "cuts", "operations"}.
"""

import json
import sys
import time

from hil.cuts.board import (
    agents,
    controls,
    deltas,
    device,
    firmware,
    going_back,
    identities,
    jobs,
    mishaps,
    outbox,
    updates,
)
from hil.cuts.board.sweep import NODES, Rig

TICK_MS = 300
MODULES = (updates, jobs, identities, agents, deltas, firmware, going_back, mishaps, controls)


def say(**members):
    print(json.dumps(members))


def rig_of(name):
    if name[:7] == "outbox-":
        return outbox.Rig(name)
    for module in MODULES:
        if name in module.SCENARIOS:
            return Rig(name, module.SCENARIOS[name])
    raise KeyError(name)


def play(case):
    name, _, rest = case.partition("/")
    try:
        rig_of(name).play(rest)
    except device.Problem as problem:
        say(bad=case, problem=str(problem))
    say(end=True, cases=1, states=1, cuts=0, operations=0)


class Sum:
    cases = states = cuts = bad = operations = 0


def task(wanted):
    total = Sum()
    for name in wanted["scenario"].split("+"):
        one(name, wanted, total)
    say(
        end=True,
        cases=total.cases,
        states=total.states,
        cuts=total.cuts,
        operations=total.operations,
        bad_count=total.bad,
    )


def one(name, wanted, total):
    try:
        rig = rig_of(name)
    except device.Problem as problem:
        total.cases += 1
        total.bad += 1
        return say(bad=name + "/clean", problem=str(problem))
    rig.every = wanted.get("every", False)
    rig.nodes = wanted.get("nodes", NODES)
    rig.told = 0
    rig.next = time.ticks_ms()

    def report(result):
        while rig.told < len(result.bad):
            case, problem = result.bad[rig.told]
            rig.told += 1
            if rig.told <= 20:
                say(bad=case, problem=problem)
        if time.ticks_diff(time.ticks_ms(), rig.next) >= 0:
            rig.next = time.ticks_add(time.ticks_ms(), TICK_MS)
            say(cases=total.cases + result.cases)

    done = rig.sweep(wanted["kind"], wanted["part"], wanted["parts"], report, wanted.get("limit"))
    total.cases += done.cases
    total.states += done.states
    total.cuts += done.cuts
    total.bad += len(done.bad)
    total.operations += len(rig.log)


def main():
    device.prepare()
    for text in sys.argv[1:]:
        wanted = json.loads(text)
        if "replay" in wanted:
            play(wanted["replay"])
        else:
            task(wanted)


main()
