# SPDX-License-Identifier: Apache-2.0
"""Updates of the agent itself on boards: two generations in slots, and the factory's agent, which is never touched.

boards/common/main.py chooses among them by the state, and uses two members of it beside those of trial.py:
    before    slot of the generation that ran before the active one, None for the factory's; to this it goes back
    fails     how often the active one has failed to start since it last did; from 3 on, of the one before, plus 3
"""

import sys

from edgeagent.compat import Any, remove_tree
from edgeagent.ota import trial
from edgeagent.ota.slots import Slots


class Generations(Slots):
    """Slots below `root`, of the agent."""

    PLAIN = True

    def running(self) -> str:
        """As Slots.running; "" for the factory's."""
        path = str(sys.modules["edgeagent"].__path__)
        return path[len(self.root) + 1] if path.startswith(self.root + "/") else ""

    def prepare(self, artifact: str) -> str:
        """As Slots.prepare. The generation that runs is the active one afterwards, and the only one besides the
        factory's: there is no way back to what is about to be overwritten.
        """
        root = self.root
        document = self._idle()
        slot = self.running() or None
        active = document["active"]
        if slot != active:
            # Stage 0 could not start the active one, and none at all if the factory's runs.
            for name in "" if slot else "ab":
                trial.write_sealed("%s/%s.json" % (root, name), {"complete": False})
                remove_tree(root + "/" + name)
            document["active"] = slot
            document["state"] = "rolled_back"
            document["job"] = None  # whose configuration was kept
        if slot != active or document.get("before"):
            document["before"] = None
            document["fails"] = 0
            trial.save(root, document)
        return Slots.prepare(self, artifact)

    def version(self, agent: "Any") -> str:
        """The version of the agent that runs."""
        return str(agent.facts()["agent"])
