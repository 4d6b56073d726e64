# SPDX-License-Identifier: Apache-2.0
"""Storms: eight cuts in a row, each in the recovery from the one before.

Storms with neighbouring seeds have their first cuts in common, so a state of the flash is played once for all that go
on from it. What a power-on would have come to without another cut is judged at each of them.
"""

from hil.cuts.board import device as devices
from hil.cuts.board.flash import apply, number, tears

CUTS = 8
SHARED = (5, 4, 4, 3, 3, 2, 2, 0)  # 2 ** SHARED[n] storms have cut n, and all before it, in common
TRIES = 6  # to find a cut after which there is something left to do


class State:
    """A flash without power. key: what the seeds of all that go on from here have in common. life: of its power-on."""

    def __init__(self, key, data, facts, life):
        self.key = key
        self.data = data
        self.facts = facts
        self.life = life


def storm(rig, seed, result=None):
    """Play it. Its beginning is kept in rig.path, for the next one. Raises Problem."""
    path = rig.path
    if not path:
        path.append(State(0, rig.base, devices.World.START, rig.life(rig.base, devices.World.START, False, True)[0]))
    for cut in range(CUTS):
        key = seed >> SHARED[cut]
        if len(path) == cut + 1 or path[cut + 1].key != key:
            del path[cut + 1 :]
            path.append(after(rig, path[cut], key, cut))
        if result:
            result.cuts += 1
        life = path[cut + 1].life
        if life.problem:
            raise devices.Problem(life.problem)
        if not life.count:
            return


def after(rig, state, key, cut):
    """The state after one more cut, which is number `cut`."""
    log = state.life.log
    for again in range(TRIES):
        text = "%s/%d/%d/%d" % (rig.name, key, cut, again)
        reach = len(log) * (2 + number(text + "r", 3)) // 4 >> again
        k = number(text + "k", max(reach, 1))
        kinds = tears(log[k])
        data = bytearray(state.data)
        for operation in log[:k]:
            apply(data, operation)
        apply(data, log[k], kinds[number(text + "t", len(kinds))], text)
        facts = log[k][2]
        life, _ = rig.life(data, facts, False, cut < CUTS - 1)
        if life.count or life.problem:
            break
    return State(key, data, facts, life)
