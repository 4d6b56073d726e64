# SPDX-License-Identifier: Apache-2.0
"""The two application slots: fill the inactive one, then point to it. The running slot is never written.

An update passes: prepare (inactive slot declared unusable, then wiped) → files written → complete → activate.
A power cut between any two flash operations leaves the active slot as it was.
"""

import os

from edgeagent.compat import Any, make_dirs, remove_tree
from edgeagent.errors import UpdateError
from edgeagent.ota import state


class Slots:
    """Slots below `root` (root/a, root/b)."""

    def __init__(self, root: str) -> None:
        self.root = root

    def active(self) -> "str | None":
        """Letter of the slot that runs at the next boot; None if there is no application."""
        document = state.load(self.root)
        return document["active"] if document else state.pick(self.root)

    def active_path(self) -> "str | None":
        """Folder of the active slot."""
        slot = self.active()
        return self.root + "/" + slot if slot else None

    def prepare(self, artifact: str) -> str:
        """The inactive slot's folder, empty, or as an earlier download of the same artifact left it.

        artifact: hex SHA-256 of the manifest; `complete` must follow.
        Raises UpdateError "busy" during a trial (the other slot is the only way back then), OSError.
        """
        document = self._not_on_trial()
        slot = state.other(self.active())
        path = self.root + "/" + slot
        known = state.info(self.root, slot)
        if known["artifact"] == artifact:
            if known["complete"]:
                self._note(slot, False, artifact)
            return path
        make_dirs(self.root)
        if document is None:
            # From now on it is written down what runs: a slot that is filled must not run before it is activated.
            state.save(self.root, state.initial(self.active()))
        # Unusable before the first file goes; wiped before it belongs to the artifact: no stale file can shadow.
        self._note(slot, False, None)
        remove_tree(path)
        os.mkdir(path)
        self._note(slot, False, artifact)
        return path

    def _note(self, slot: str, complete: bool, artifact: "str | None", version: str = "", security: int = 0) -> None:
        document = state.load(self.root)
        state.write_sealed(
            self.root + "/" + slot + ".json",
            {
                "complete": complete,
                "artifact": artifact,
                "version": version,
                "security_version": security,
                "n": document["n"] if document else 0,
            },
        )

    def complete(self, artifact: str, version: str, security_version: int) -> None:
        """Declare the inactive slot verified, every byte read back from flash. Raises OSError."""
        self._note(state.other(self.active()), True, artifact, version, security_version)

    def activate(self, version: str, job_id: str, deadline_s: int, previous: "str | None" = None) -> None:
        """Run the inactive slot from the next boot on, as a trial of `deadline_s` seconds. One durable write.

        previous: version that runs now, if the caller knows it better than the slot's record.
        Raises UpdateError "slot" if the slot is not complete, "busy" during a trial; OSError.
        """
        document = self._not_on_trial() or state.initial(self.active())
        active = document["active"]
        slot = state.other(active)
        known = state.info(self.root, slot)
        if not known["complete"] or not state.filled(self.root, slot):
            raise UpdateError("slot", "slot %s is not complete" % slot)
        if previous is None and active:
            previous = state.info(self.root, active)["version"]
        document["active"] = slot
        document["phase"] = "trial"
        document["version"] = version
        document["previous_version"] = previous
        document["job"] = job_id
        document["reason"] = None
        document["boots"] = 0
        document["deadline_s"] = deadline_s
        document["security_version"] = known["security_version"]
        state.save(self.root, document)

    def _not_on_trial(self) -> "dict[str, Any] | None":
        document = state.load(self.root)
        if document and document["phase"] == "trial":
            raise UpdateError("busy", "version %s is still on trial" % document["version"])
        return document

    def free(self) -> int:
        """Bytes free in the file system of the slots."""
        facts = os.statvfs(self.root)
        return int(facts[0] * facts[3])
