# SPDX-License-Identifier: Apache-2.0
"""The two application slots: fill the inactive one, then point to it. The running slot is never written.

An update passes: prepare (inactive slot declared unusable, then wiped) → files written → complete → activate.
A power cut between any two flash operations leaves the active slot as it was.
"""

from edgeagent.compat import Any, exists, make_dirs, remove_tree
from edgeagent.errors import UpdateError
from edgeagent.ota import trial


class Slots:
    """Slots below `root`: root/a.idx and root/b.idx of the contents in root/store (store.py).

    PLAIN: root/a and root/b are folders of files instead, as slots are that were filled at the factory by hand.
    """

    PLAIN = False

    def __init__(self, root: str) -> None:
        self.root = root

    def prepare(self, artifact: str) -> str:
        """The inactive slot's path, empty, or as an earlier download of the same artifact left it.

        artifact: hex SHA-256 of the manifest; `complete` must follow.
        What runs is kept, even if it is not what should run. Raises UpdateError "busy" during a trial (the other slot
        is the only way back then), "slot" if what should run is whole, but something else runs; OSError.
        """
        root = self.root
        document = self._idle()
        active = self.running() or document["active"]
        lost = active != document["active"]
        if lost and trial.filled(root, document["active"]):
            raise UpdateError("slot", "a restart is needed")  # its index was misread, or nobody restarted after a trial
        slot = trial.other(active)
        path = root + "/" + slot
        make_dirs(root)
        if lost or not document["n"]:
            # From now on it is written down what runs: a slot that is filled must not run before its activation.
            document["active"] = active
            trial.save(root, document)
        if trial.info(root, slot).get("artifact") != artifact:
            # Unusable before the first file goes; wiped before it belongs to the artifact: no stale file can shadow.
            self.complete(None, None, 0, False)
            for end in (".idx", ""):
                remove_tree(path + end)
            make_dirs(path if self.PLAIN else root + "/store")
        self.complete(artifact, None, 0, False)
        return path

    def complete(self, artifact: "str | None", version: "str | None", security_version: int, good: bool = True) -> None:
        """Declare the inactive slot verified, every byte read back from flash; or not `good`. Raises OSError."""
        document = trial.status(self.root)
        trial.write_sealed(
            "%s/%s.json" % (self.root, trial.other(document["active"])),
            {
                "complete": good,
                "artifact": artifact,
                "version": version,
                "security_version": security_version,
                "n": document["n"],
            },
        )

    def activate(self, version: str, job_id: str, deadline_s: int, previous: "str | None" = None) -> None:
        """Run the inactive slot from the next boot on, as a trial of `deadline_s` seconds. One durable write.

        previous: version that runs now, if the caller knows it better than the slot's record.
        Raises UpdateError "slot" if the slot is not complete, "busy" during a trial; OSError.
        """
        root = self.root
        document = self._idle()
        active = document["active"]
        slot = trial.other(active)
        known = trial.info(root, slot)
        if not known["complete"] or not trial.filled(root, slot):
            raise UpdateError("slot", slot)
        document.update(
            {
                "active": slot,
                "before": active,
                "state": "trial",
                "version": version,
                "previous_version": previous or trial.info(root, active).get("version"),
                "job": job_id,
                "reason": None,
                "boots": 0,
                "fails": 0,  # of an agent; else its way back would be taken for as bad
                "causes": [],
                "deadline_s": deadline_s,
                "security_version": known.get("security_version", 0),
            }
        )
        trial.save(root, document)

    def writer(self, place: str, manifest: "Any", hashes: "Any") -> "Any":
        """What takes the blocks of an artifact (writer.Writer). place: of `prepare`. hashes: file of the hash list.

        Raises UpdateError "bundle".
        """
        made: "Any"
        if self.PLAIN:
            from edgeagent.ota.folder import Folder as made
        else:
            from edgeagent.ota.writer import Writer as made
        return made(place, manifest, hashes)

    def old(self) -> "Any":
        """The payload that runs (payload.Payload: artifact, size, readinto); None if the slot is a plain folder."""
        active = trial.status(self.root)["active"]
        artifact = trial.info(self.root, active).get("artifact")
        path = "%s/%s" % (self.root, active)
        if not artifact or not exists(path + ".idx"):
            return None
        from edgeagent.ota.payload import Payload

        return Payload(path, artifact)

    async def kept(self) -> "tuple[str | None, int]":
        """(version, security version) of the one that ran before, which `activate` would run again.

        Raises UpdateError "slot" if nothing is kept, "rolled-back" if that is the one that failed; OSError.
        """
        status = trial.status(self.root)
        if status["state"] == "rolled_back":
            raise UpdateError("rolled-back", status["version"])
        slot = trial.other(status["active"])
        known = trial.info(self.root, slot)
        # What has been downloaded since, and has never run, is as new as the state; in which stage 0 counts, too.
        unproven = known.get("n", 0) >= status["n"] or (self.PLAIN and status.get("before") != slot)
        if not known["complete"] or unproven or not trial.filled(self.root, slot):
            raise UpdateError("slot", "nothing is kept")
        # Of a slot that was filled at the factory only the second is known.
        return known.get("version") or status["previous_version"], known.get("security_version", 0)

    def running(self) -> "str | None":
        """The slot of what runs; "" if it is in none, None if that is not known."""
        return trial.Running.slot

    def version(self, agent: "Any") -> "str | None":
        """The version that runs: of an update what was signed, for the bare agent in its place does not know it."""
        return str(trial.info(self.root, self.running()).get("version") or agent.version)

    def runs(self, status: "dict[str, Any]") -> bool:
        """True if what runs now is what `status` has put on trial."""
        return self.running() in (None, status["active"])

    def confirm(self) -> None:
        """As trial.confirm."""
        trial.confirm(self.root)

    def _idle(self) -> "dict[str, Any]":
        """The state, if there is no trial."""
        document = trial.status(self.root)
        if document["state"] == "trial":
            raise UpdateError("busy", document["version"])
        return document

    def free(self) -> int:
        """Bytes free in the file system of the slots."""
        from edgeagent.space import free

        return free(self.root)
