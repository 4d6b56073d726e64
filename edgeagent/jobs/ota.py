# SPDX-License-Identifier: Apache-2.0
"""Job operation "ota": update the application over MQTT streams, prove the new version, or go back and say why.

Document: {"operation": "ota", "stream": ID, "artifact": {"envelope": bytes, "blocks": bytes, "payload": bytes}}.
The slots' state, not this job's journal, is the truth about what happened. It names the execution it belongs to, so
`run` may be called again after a cut anywhere and goes on from there:

    state of the slots, for this execution     run()
    none of its own                            fetch and verify into the inactive slot (resuming), activate, reset
    on trial, not booted yet                   reset
    on trial, booted                           report, wait for health, confirm: SUCCEEDED; else roll back, reset
    confirmed                                  SUCCEEDED
    rolled back                                FAILED "rolled-back: …"
"""

import asyncio

from edgeagent import clock, compat, log
from edgeagent.compat import Any, const
from edgeagent.errors import UpdateError
from edgeagent.ota import trial

RESUME = True
_RETRY_S = const(2)


async def run(job: "Any") -> "dict[str, Any]":
    """Handler. Returns {"version", "previous"} of a confirmed update.

    Raises JobRejected for a bad document, UpdateError with a code of docs/ota.md for what went wrong.
    """
    root = job.agent.port.slots_dir
    own = "%s/%d" % (job.id, job.execution)
    status = trial.status(root)
    if status["job"] != own:
        await _install(job, root, own)
    elif status["state"] == "trial" and not status["boots"]:
        job.reset("update")
    elif status["state"] == "trial":
        await _prove(job, root, status)
    status = trial.status(root)
    if status["state"] == "confirmed":
        return {"version": status["version"], "previous": status["previous_version"] or "none"}
    raise UpdateError("rolled-back", status["reason"] or "the restart did not happen")


async def _install(job: "Any", root: str, own: str) -> None:
    """Does not return if all goes well: the device restarts into the new version."""
    from edgeagent.ota import update

    version = await update.fetch(job, root)
    from edgeagent.ota.slots import Slots

    await job.progress(100, step="restart", version=version)
    Slots(root).activate(version, own, job.agent.config.confirm_within, job.agent.version)
    try:
        job.reset("update")
    except Exception as error:
        # Still the old version; nobody is to find a trial whose job has failed.
        trial.failed(root, "no restart: " + compat.exc_text(error))
        raise


async def _prove(job: "Any", root: str, status: "dict[str, Any]") -> None:
    """In the new version: confirm it once the service took a message from it and the application says it is well.

    Returns when the trial is over. Rolls back and resets at the deadline, when the service has ended the job, or when
    this is not the new version after all.
    """
    start = clock.ticks()
    reason = ""
    if trial.Running.known and trial.Running.slot != status["active"]:
        reason = "slot %s could not be booted" % status["active"]
    accepted = False
    try:
        while not reason:
            if not accepted:
                accepted = await job.progress(None, step="trial", version=status["version"])
            good, why = await job.agent.healthy()
            if accepted and good and trial.confirm(root):
                return
            if trial.status(root)["state"] != "trial":
                return
            if clock.elapsed_ms(start) >= status["deadline_s"] * 1000:
                reason = "not confirmed within %d s: %s" % (status["deadline_s"], why or "no answer from the service")
            else:
                await asyncio.sleep(_RETRY_S)
    except asyncio.CancelledError:
        if not job.revoked:
            raise
        reason = "the service ended the job"
    log.error("ota", "%s", reason)
    trial.failed(root, reason)
    job.reset("rollback")
