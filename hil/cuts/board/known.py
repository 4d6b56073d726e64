# SPDX-License-Identifier: Apache-2.0
"""What is known of power-ons: one that reads what another has read does what the other did.

A device is a function of the bytes that it reads and of the world. Two flashes that differ only where nothing looks, in
a block that no file owns yet say, need one judgement. Lives are kept in a tree: a node names the cells that are read
next, in this order, and has a branch for each content that was met. A node may name more cells than its later branches
read; then two alike are taken for different, never the other way round.
"""

from hil.cuts.board.flash import digest

STEP = 32  # cells of a node


class Life:
    """One power-on. problem: the promise it broke or None. count: its operations. log: they, or None if not kept."""

    def __init__(self, problem, count, log):
        self.problem = problem
        self.count = count
        self.log = log


class Known:
    """nodes: how many there are."""

    def __init__(self):
        self.roots = {}
        self.nodes = 0

    @staticmethod
    def world(facts, strict):
        """All else that a power-on depends on."""
        return "%s %s" % (strict, sorted(facts.items()))

    def find(self, data, world):
        """The life of a device with this flash, or None."""
        node = self.roots.get(world)
        while isinstance(node, tuple):
            cells, branches = node
            node = branches.get(digest(data, cells, len(cells)))
        return node

    def learn(self, data, world, order, life):
        """data: the flash before that life. order: array of the cells it has read, in their order."""
        node = self.roots.get(world)
        if node is None:
            node = self.roots[world] = (order[:STEP], {})
            self.nodes += 1
        while True:
            cells, branches = node
            size = len(cells)
            if bytes(order[:size]) == bytes(cells):
                order = order[size:]
            else:
                named = set(cells)
                order = type(order)("H", [cell for cell in order if cell not in named])
            key = digest(data, cells, size)
            if not len(order):
                branches[key] = life
                return
            if not isinstance(branches.get(key), tuple):
                self.nodes += 1
                branches[key] = (order[:STEP], {})
            node = branches[key]
