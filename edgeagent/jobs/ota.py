# SPDX-License-Identifier: Apache-2.0
"""Job operation "ota": update the application over MQTT streams, prove the new version, or go back and say why.

Document: {"operation": "ota", "stream": ID, "artifact": {"envelope": bytes, "blocks": bytes, "payload": bytes}}.
The slots' state, not this job's journal, is the truth about what happened. It names the execution it belongs to, so
`run` may be called again after a cut anywhere and goes on from there:

    state of the slots, for this execution     run()
    none of its own                            fetch and verify into the inactive slot (resuming), activate, reset
    on trial, not booted yet                   reset
    on trial, booted                           report, wait for health, confirm: SUCCEEDED; guard.py ends it in time
    confirmed                                  SUCCEEDED
    rolled back                                FAILED "rolled-back: …"
"""

import asyncio

from edgeagent.compat import Any, exc_text
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.jobs.registry import unload
from edgeagent.ota import trial

RESUME = True


async def run(job: "Any", source: "Any" = None, approve: "Any" = None) -> "dict[str, Any]":
    """Handler. source: takes the place of `fetch`. approve: coroutine function of folder and manifest that has the last
    word before the new version may run. Returns {"version", "previous"} of a confirmed update.

    Raises JobRejected for a bad document, UpdateError with a code of docs/ota.md for what went wrong.
    """
    root = job.agent.port.slots_dir
    own = "%s/%d" % (job.id, job.execution)
    status = trial.status(root)
    if status["job"] != own:
        await _install(job, root, own, source or fetch, approve)
    elif status["state"] == "trial":
        if status["boots"]:
            await _prove(job, root, status)
        else:
            job.reset("update")
    status = trial.status(root)
    if status["state"] == "confirmed":
        from edgeagent.jobs import trust

        trust.keep_floor(job.agent.config.trust, status["floor"])
        return {"version": status["version"], "previous": status["previous_version"] or "none"}
    raise UpdateError("rolled-back", status["reason"] or "no restart")


async def _install(job: "Any", root: str, own: str, source: "Any", approve: "Any") -> None:
    """Put the verified artifact into the inactive slot, going on where an earlier try stopped, and restart into it.

    Does not return if all goes well. Phases follow each other, and what a phase brought into memory is dropped after
    it: a board has no room for all at once.
    """
    stream = job.document.get("stream")
    if type(stream) is not str or not 0 < len(stream) <= 128 or "/" in stream or "+" in stream or "#" in stream:
        raise JobRejected("stream: must be the id of a stream")
    sizes: "list[int]" = []
    for member in ("envelope", "blocks", "payload"):
        try:
            size = job.document["artifact"][member]
        except (LookupError, TypeError):
            size = 0
        # The envelope is 4096 bytes at most; the manifest in it says what the others have to be.
        if type(size) is not int or size < 1 or (size > 4096 and not sizes):
            raise JobRejected("artifact.%s: must be a number of bytes" % member)
        sizes.append(size)

    agent = job.agent
    try:
        raw = bytearray()

        def keep(number: int, data: bytes) -> None:
            raw.extend(data)

        if "trust" in job.document:
            from edgeagent.jobs.trust import rotate

            await rotate(agent, job.document["trust"])
            del rotate
        await source(job, stream, 0, sizes[0], keep)
        unload(["edgeagent.ota.transfer"])
        from edgeagent.ota import verify

        trust = verify.load_trust(agent.config.trust)
        manifest, artifact = await verify.open_envelope(raw, trust)
        facts = dict(agent.config.device_configuration)
        facts.update(agent.facts())
        verify.check(manifest, facts, agent.version, max(trust.floor, trial.status(root)["floor"]))
        del trust, verify
        raw = bytearray()
        unload(["edgeagent.p256", "edgeagent.jobs.trust"])
        unload(["edgeagent.ota." + name for name in ("verify", "ecdsa", "rsa", "lms", "manifest")])
        if sizes[1:] != [32 * (manifest.blocks + len(manifest.files)), manifest.size]:
            raise UpdateError("size", "not the artifact's")
        from edgeagent.ota.slots import Slots
        from edgeagent.ota.writer import Writer

        slots = Slots(root)
        folder = slots.prepare(artifact)
        await source(job, stream, 1, sizes[1], keep)
        writer = Writer(folder, manifest, raw)

        def tick(percent: int) -> Any:
            return job.progress(percent, step="download", version=manifest.version)

        try:
            first = await writer.resume()
            missing = manifest.size - first * 4096
            if missing > slots.free():
                raise UpdateError("space", "%d bytes missing" % (missing - slots.free()))
            await source(job, stream, 2, manifest.size, writer.block, first, tick)
            await writer.finish()
            if approve:
                await approve(folder, manifest)
        finally:
            writer.close()
        slots.complete(artifact, manifest.version, manifest.security_version)
    except OSError as error:
        raise UpdateError("storage", str(error)) from None
    await job.progress(100, step="restart", version=manifest.version)
    slots.activate(manifest.version, own, agent.config.confirm_within, agent.version)
    try:
        job.reset("update")
    except Exception as error:
        # Still the old version; nobody is to find a trial whose job has failed.
        trial.failed(root, "no restart: " + exc_text(error))
        raise


async def fetch(job: "Any", stream: str, file: int, size: int, sink: "Any", first: int = 0, tick: "Any" = None) -> None:
    """As Fetcher.fetch, for one file of the stream; nothing of the transfer is left in use afterwards."""
    from edgeagent.ota.transfer import Fetcher

    fetcher = Fetcher(job.agent, stream)
    try:
        await fetcher.fetch(file, size, sink, first, tick)
    finally:
        await fetcher.close()


async def _prove(job: "Any", root: str, status: "dict[str, Any]") -> None:
    """In the new version: confirm it once the service took a message from it and the application says it is well.

    Returns when the trial is over; its deadline is guard.py's. Rolls back and resets when the service has ended the
    job, or when this is not the new version after all.
    """
    reason = "the slot could not be booted"
    if trial.Running.slot in (None, status["active"]):
        try:
            accepted = False
            while trial.status(root)["state"] == "trial":
                accepted = accepted or await job.progress(None, step="trial", version=status["version"])
                if accepted and (await job.agent.healthy())[0]:
                    trial.confirm(root)
                else:
                    await asyncio.sleep(2)
            return
        except asyncio.CancelledError:
            if not job.revoked:
                raise
            reason = "the service ended the job"
    trial.failed(root, reason)
    job.reset("rollback")
