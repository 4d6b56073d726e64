# SPDX-License-Identifier: Apache-2.0
"""Whole images of a Linux machine: which one is on trial, and the way back. Loaded if agent.json has "image".

"image" in agent.json (all members optional but one has to be there):
    rauc    path of RAUC's program, default "/usr/bin/rauc"
    folder  where bundles lie that a job may name by path; default: only https
    reboot  [program, arguments] that restarts the machine, default that of AWS-Reboot (jobs/steps.py)
The job operations are in jobs/image.py; this part has to work without a link and without its job. The record is
trial.py's, in a folder of its own, and RAUC is asked what is true. What the record has beyond those of other kinds:
    before     slot that was booted when it began; the other one is the new one
    written    how RAUC tells what was in `before` from any other installation into it
    left       [slot, as `written`] that could be gone back to when it began, and can be again if it ends before its
               restart; [None, None]: none
    kept       slot that is gone back to; None in an update, and then
    bundle     [compatible, version, {class: SHA-256}] of what is being installed
    path       of the bundle's file
    installed  RAUC has written all of it, or it was kept, and its slot is the primary one
    kernel     boot id of the machine when the record was last looked at after a restart
    returns    restarts asked for to go back; settled: it has gone back, or could not
A new image is counted as booted before anything else runs, so guard.py ends a trial that nobody confirms. Then, after
a restart of the agent:

    record                       booted          `settle`
    trial, never restarted       old             nothing: the job goes on; without one, the update is given up
    trial, being installed       old             the same: RAUC keeps a half-written slot from being booted
    trial, installed             old             rolled back by the boot loader
    trial                        new             nothing: it has to prove itself
    rolled back                  new             mark-bad, restart the machine
    rolled back                  old             mark-bad of the other slot, mark-active of this one: settled
    rolled back, never on trial  kept            mark-active of the old one, restart the machine; nobody marks bad what
                                                 nothing is known against
"""

from __future__ import annotations

import asyncio
from typing import Any

from edgeagent import log
from edgeagent.compat import exc_text, make_dirs
from edgeagent.errors import AgentError, ConfigError, UpdateError
from edgeagent.jobs.journal import Journal
from edgeagent.ota import kinds, trial
from edgeagent.ports.linux import programs
from edgeagent.ports.linux.rauc import Bundle, Rauc, System

KIND = "image"
RETURNS = 3
_LOOK_S = 5.0
_ENDED = "the service ended the job"


def check(data: Any) -> tuple[str, str | None, list[str] | None]:
    """(rauc, folder, reboot) of the "image" object of agent.json. Raises ConfigError naming the member."""
    if not isinstance(data, dict):
        raise ConfigError("image", "must be an object")
    for name in data:
        if name not in ("rauc", "folder", "reboot"):
            raise ConfigError("image." + name, "is unknown")
    for name in ("rauc", "folder"):
        value = data.get(name, "/")
        if not isinstance(value, str) or value[:1] != "/":
            raise ConfigError("image." + name, "must be an absolute path")
    reboot = data.get("reboot")
    if reboot is not None:
        good = isinstance(reboot, list) and reboot and all(isinstance(word, str) for word in reboot)
        if not good or reboot[0][:1] != "/":
            raise ConfigError("image.reboot", "must be a list of texts, the first one an absolute path")
    return data.get("rauc", "/usr/bin/rauc"), data.get("folder"), reboot


def _tried(record: dict[str, Any]) -> bool:
    """True if the machine was restarted into what is, or was, on trial."""
    return bool(record["boots"] and record["installed"])


def _left(record: dict[str, Any]) -> tuple[str | None, list[Any] | None]:
    """Slot of the system before, and how RAUC told what was in it; None if there is none."""
    if record["state"] == "rolled_back" and not _tried(record):
        slot, written = record["left"]
        return slot, written
    return record.get("before"), record.get("written")


def _count(root: str) -> bool:
    """Count a restart of the machine into what is on trial, once. True if there is such a trial. Raises OSError."""
    record = trial.status(root)
    if record["state"] != "trial":
        return False
    now = programs.kernel_boot()
    if record["kernel"] != now:
        record["boots"] += 1
        record["kernel"] = now
        trial.save(root, record)
    return bool(record["boots"])


def crashed(port: Any, reason: str) -> None:
    """The application has ended by itself: a system on trial must run what the one before ran. `settle` goes back."""
    root = kinds.folder(port, KIND)
    try:
        if _count(root):
            trial.failed(root, reason)
    except OSError as error:
        log.error("image", "%s", error)  # then the trial ends at its deadline


class Part:
    """The image of one agent's machine. A target of updates, as far as `handover.prove` needs one."""

    def __init__(self, agent: Any) -> None:
        """Raises ConfigError."""
        from edgeagent.jobs import image, steps

        program, self.folder, reboot = check(agent.config.image)
        self.agent = agent
        self.rauc = Rauc(program, reboot or steps.REBOOT_ARGV)
        self.root = kinds.folder(agent.port, KIND)
        self.patience = steps.REBOOT_S
        self._lock = asyncio.Lock()
        self._booted = ""
        self._uncounted = False
        agent.handlers.register(KIND, image.run, True)
        try:
            _count(self.root)
        except OSError as error:
            log.error("image", "trial cannot be counted: %s", error)
            self._uncounted = True  # guard.py would let it run for ever
        agent.services.append(self.watch)

    def status(self) -> dict[str, Any]:
        """As trial.status."""
        return trial.status(self.root)

    # --- what the job does

    def kept(self, system: System) -> str:
        """The slot of the system before: which an update that was confirmed has left, and RAUC not touched since.

        RAUC marks a slot bad before it writes to it. Raises UpdateError "slot", "rolled-back".
        """
        record = self.status()
        if record["state"] == "rolled_back" and _tried(record):
            raise UpdateError("rolled-back", record["version"])
        slot, written = _left(record)
        if slot not in system.slots or slot == system.booted or written != system.written(slot):
            raise UpdateError("slot", "nothing is kept")
        if not any(system.written(slot) + system.written(system.booted)):
            raise UpdateError("slot", "RAUC keeps no status of slots")
        if system.state(slot) != "good":
            raise UpdateError("slot", "%s is %s" % (slot, system.state(slot)))
        return str(slot)

    def begin(self, job: Any, system: System, version: str, kept: str | None = None, **what: Any) -> None:
        """Durable before RAUC changes anything: whatever boots next is on trial until it is settled. Raises OSError.

        what: bundle and path of the record.
        """
        make_dirs(self.root)
        record = self.status()
        record.update(
            left=_left(record),
            state="trial",
            active=KIND,
            version=version,
            previous_version=system.version(system.booted),
            security_version=0,
            job=kinds.name(job.id, job.execution, job.queued),
            reason=None,
            boots=0,
            causes=[],
            deadline_s=self.agent.config.confirm_within,
            before=system.booted,
            written=system.written(system.booted),
            kept=kept,
            installed=False,
            kernel=programs.kernel_boot(),
            returns=0,
            settled=False,
            **what,
        )
        trial.save(self.root, record)

    async def install(self, tick: Any) -> None:
        """Have RAUC write what `begin` was told of, unless it has, and make that slot the next one to be booted.

        Raises UpdateError, OSError.
        """
        record = self.status()
        before, kept = record["before"], record["kept"]
        system = await self.rauc.idle()
        if not kept and (system.primary == before or not system.holds(system.primary, Bundle(*record["bundle"]))):
            await self.rauc.install(record["path"], tick)
            system = await self.rauc.idle()
        if system.primary == before:  # kept, or activate-installed=false
            await asyncio.to_thread(self.rauc.mark, "active", kept or "other")
            system = await self.rauc.idle()
        if system.primary == before:
            raise UpdateError("install", "the boot loader's next slot is still " + system.primary)
        record["installed"] = True
        trial.save(self.root, record)

    async def restart(self) -> None:
        """Into the new image. Returns, with everything undone, if the machine does not restart."""
        try:
            await self.rauc.restart(self.patience)
        except AgentError as error:
            await self.give_up(str(error))

    async def give_up(self, reason: str) -> None:
        """End the update and see to it that the old image is, or will be, booted."""
        trial.failed(self.root, reason)
        try:
            await self.settle()
        except UpdateError:
            self.agent._begin(self.settle)  # until RAUC answers again

    def drop(self) -> None:
        """As `give_up`, of a job that the service has ended; in a task of its own, since the job's is being ended."""
        trial.failed(self.root, _ENDED)
        self.agent._begin(self.settle)

    def runs(self, status: dict[str, Any]) -> bool:
        """True if what is booted is the image on trial. After `settle`."""
        return self._booted != str(status["before"])

    def confirm(self) -> None:
        """Tell RAUC that the booted slot is good, and only then the record. Raises UpdateError, OSError."""
        self.rauc.mark("good", "booted")
        trial.confirm(self.root)

    # --- after a restart

    async def watch(self) -> None:
        """Settle what the last restart left behind, and give up an update of which no job knows any more."""
        if self._uncounted:
            await self.rauc.restart(self.patience)
        await self.settle()
        record = self.status()
        if record["state"] in ("none", "confirmed") or (await self.rauc.idle()).booted == record["before"]:
            # What is not on trial gets back what this boot may have cost: U-Boot and GRUB count them all.
            await self._mark("good", "booted")
        while True:
            record = self.status()
            if record["state"] != "trial" or record["boots"]:
                return
            job = Journal(self.agent.port.state_dir + "/job.json").read()
            if not job or kinds.name(job["jobId"], job["executionNumber"], job["queuedAt"]) != record["job"]:
                await self.give_up(_ENDED)
            await asyncio.sleep(_LOOK_S)

    async def settle(self) -> None:
        """Make record and machine agree, by the table above. Restarts the machine if it has to go back.

        Raises UpdateError "rauc", "busy", JobFailed if it does not restart.
        """
        async with self._lock:
            record = self.status()
            if record["state"] == "trial" and record["boots"]:
                system = await self.rauc.idle()
                self._booted = system.booted
                if not self.runs(record):
                    if record["installed"]:
                        state = ", ".join("%s is %s" % (slot, system.state(slot)) for slot in sorted(system.slots))
                        log.error("image", "the boot loader went back")
                        trial.failed(self.root, "the boot loader went back to %s; %s" % (system.booted, state))
                    else:
                        record["boots"] = 0
                        trial.save(self.root, record)
                record = self.status()
            if record["state"] == "rolled_back" and not record["settled"]:
                await self._return(record)

    async def _return(self, record: dict[str, Any]) -> None:
        before = record["before"]
        try:
            system = await self.rauc.idle()
        except UpdateError as error:
            if not record["boots"] and record["kernel"] == programs.kernel_boot():
                raise  # this is the old one still
            # An image whose RAUC does not work is hardly the old one; the boot loader runs out of attempts with it.
            log.error("image", "%s", error)
            system = None
        if system and system.booted == before:
            for slot in system.slots:
                held = system.slots[slot]
                bad = _tried(record) if record["kept"] else record["installed"] or slot == system.primary
                if bad and slot != before and held.get("class") == system.slots[before].get("class"):
                    await self._mark("bad", slot)
            if system.primary != before:
                await asyncio.to_thread(self.rauc.mark, "active", before)  # else the next restart undoes all this
            record["settled"] = True
            return trial.save(self.root, record)
        if record["returns"] >= RETURNS:
            record["settled"] = True
            record["reason"] = (record["reason"] or "")[:180] + "; the boot loader does not go back"
            return trial.save(self.root, record)
        record["returns"] += 1
        trial.save(self.root, record)
        if system and record["kept"] and not record["boots"]:
            await self._mark("active", before)  # power failed while what is kept was the next one to be booted
        elif system:
            await self._mark("bad", "booted")
        await self.rauc.restart(self.patience)

    async def _mark(self, state: str, slot: str) -> None:
        try:
            await asyncio.to_thread(self.rauc.mark, state, slot)
        except UpdateError as error:
            log.error("image", "%s", exc_text(error))
