# SPDX-License-Identifier: Apache-2.0
"""What comes after the download of an update: the restart into the new version, its proof, and the outcome."""

import asyncio

from edgeagent.compat import Any
from edgeagent.errors import JobFailed, UpdateError
from edgeagent.ota import kinds, trial


async def restart(
    job: "Any", target: "Any", own: str, version: str, running: "str | None", expires: "int | None" = None
) -> None:
    """Restart into the version in the inactive slot, on trial, when the gates are open. Returns never.

    own: the execution. running: the version before. expires: of the artifact. Raises UpdateError, JobFailed.
    """
    from edgeagent.ota import gate, safety

    agent = job.agent
    await gate.wait(job, "restart", version, expires)
    await job.progress(100, step="restart", version=version)
    job.checkpoint(tries=job.data.get("tries", 0) + 1)
    try:
        if agent.config_path:
            safety.keep(agent.port.slots_dir, agent.config_path, own)
        moving = target.activate(version, own, agent.config.confirm_within, running)
        if moving:  # of firmware, which reads all that runs
            await moving
    except OSError as error:
        raise UpdateError("storage", str(error)) from None
    try:
        job.reset("update")
    except Exception as error:
        # Still the old version; nobody is to find a trial whose job has failed.
        trial.failed(target.root, "no restart: %s" % error)
        raise


async def prove(job: "Any", target: "Any", status: "dict[str, Any]") -> None:
    """In the new version: confirm it once the service took a message from it and the application says it is well.

    Returns when the trial is over; its deadline is guard.py's. Rolls back and resets when the service has ended the
    job, or when this is not the new version after all.
    """
    if not status["boots"]:
        again = job.data.get("again", 0)
        if again < trial.MAX_BOOTS:
            try:
                job.checkpoint(again=again + 1)
                job.reset("update")
            except JobFailed:
                pass  # nobody would end a trial whose job has failed
        # By a launcher that is not ours, or stage 0 cannot count its boots.
        trial.failed(target.root, "its slot was never booted")
        return
    reason = "the slot could not be booted"
    runs = target.runs(status)
    if runs:
        try:
            accepted = False
            while trial.status(target.root)["state"] == "trial":
                accepted = accepted or await job.progress(None, step="trial", version=status["version"])
                if accepted and (await job.agent.healthy())[0]:
                    target.confirm()
                else:
                    await asyncio.sleep(2)
            return
        except asyncio.CancelledError:
            if not job.revoked:
                raise
            reason = "the service ended the job"
    trial.failed(target.root, reason)
    if runs:
        job.reset("rollback")


def outcome(job: "Any", kind: str) -> "dict[str, Any]":
    """What `job` reports of a trial that is over. Raises UpdateError "rolled-back"."""
    status = trial.status(kinds.folder(job.agent.port, kind))
    if status["state"] != "confirmed":
        raise UpdateError("rolled-back", status["reason"] or "no restart")
    if kind == kinds.KINDS[0]:
        from edgeagent.jobs import trust

        trust.keep_floor(job.agent.config.trust, status["floor"])
    return {"version": status["version"], "previous": status["previous_version"] or "none"}
