# SPDX-License-Identifier: Apache-2.0
"""Job operation "ota": update the application over MQTT streams, prove the new version, or go back and say why.

Document: {"operation": "ota", "stream": ID, "artifact": {"envelope": bytes, "blocks": bytes, "payload": bytes}}.
The slots' state, not this job's journal, is the truth about what happened: it names the execution it belongs to, so
that `run` may be called again after a cut anywhere and goes on from there.

    state of the slots, for this execution          run()
    none of its own                                 fetch and verify into the inactive slot (resuming), activate, reset
    on trial, not booted yet                        reset
    on trial, booted                                report, wait for health, confirm: SUCCEEDED; or roll back, reset
    confirmed                                       SUCCEEDED
    rolled back                                     FAILED "rolled-back: …"
"""

import asyncio
import gc

from edgeagent import clock, log
from edgeagent.config import LIMITS
from edgeagent.errors import JobRejected, Refused, TransportError, UpdateError
from edgeagent.ota import trial
from edgeagent.ota.manifest import MAX_PAYLOAD
from edgeagent.ota.slots import Slots

try:
    from typing import Any
except ImportError:
    pass

_RETRY_S = 2
_PERCENT_STEP = 10


def _arguments(document: dict) -> "tuple[str, int, int, int]":
    """(stream, envelope bytes, blocks bytes, payload bytes). Raises JobRejected naming the member."""
    stream = document.get("stream")
    if not isinstance(stream, str) or not 0 < len(stream) <= 128 or "/" in stream or "+" in stream or "#" in stream:
        raise JobRejected("stream: must be the id of a stream")
    artifact = document.get("artifact")
    if not isinstance(artifact, dict):
        raise JobRejected("artifact: must be an object of sizes")
    sizes = []
    for member, most in (
        ("envelope", LIMITS.MANIFEST_BYTES),
        ("blocks", MAX_PAYLOAD // LIMITS.BLOCK * 32),
        ("payload", MAX_PAYLOAD),
    ):
        size = artifact.get(member)
        if type(size) is not int or not 0 < size <= most:
            raise JobRejected("artifact.%s: must be 1 to %d bytes" % (member, most))
        sizes.append(size)
    return stream, sizes[0], sizes[1], sizes[2]


async def run(job: "Any") -> dict:
    """Handler, registered with resume=True. Returns {"version", "previous"} of a confirmed update.

    Raises JobRejected for a bad document, UpdateError with a code of docs/ota.md for everything else.
    """
    root = job.agent.port.slots_dir
    own = "%s/%d" % (job.id, job.execution)
    status = trial.status(root)
    if status["job"] == own:
        if status["state"] == "trial":
            if not status["boots"]:
                job.reset("update")
            await _prove(job, root, status)
            status = trial.status(root)
        if status["state"] == "confirmed":
            return {"version": status["version"], "previous": status["previous_version"] or "none"}
        raise UpdateError("rolled-back", str(status["reason"]))
    arguments = _arguments(job.document)
    slots = Slots(root)
    version = await _fetch(job, slots, arguments)
    await _progress(job, 100, step="restart", version=version)
    slots.activate(version, own, job.agent.config.confirm_within, job.agent.version)
    _restart(job, root)
    raise UpdateError("rolled-back", "the restart did not happen")


def _restart(job: "Any", root: str) -> None:
    try:
        job.reset("update")
    except Exception as error:
        # Still the old version, and nobody is to find a trial without its job.
        trial.failed(root, "the restart failed: %s" % error)
        raise


async def _progress(job: "Any", percent: int, **details: "Any") -> None:
    """Report; a lost link does not matter here, a job that the service ended does."""
    try:
        await job.progress(percent, **details)
    except TransportError as error:
        log.warning("ota", "progress: %s", error)


async def _fetch(job: "Any", slots: Slots, arguments: "tuple[str, int, int, int]") -> str:
    """Verified content into the inactive slot. Returns its version. Raises UpdateError."""
    # Loaded only now: an idle agent has no use for them.
    from edgeagent.ota import verify
    from edgeagent.ota.transfer import Fetcher

    agent = job.agent
    stream, envelope_size, blocks_size, payload_size = arguments
    trust = verify.load_trust(agent.config.trust)
    fetcher = Fetcher(agent, stream)
    try:
        raw = await _whole(fetcher, 0, envelope_size)
        manifest, artifact = await verify.open_envelope(raw, trust)
        del raw
        floor = max(trust.floor, trial.status(slots.root)["floor"])
        verify.check(manifest, agent.port.facts(), agent.version, floor)
        if payload_size != manifest.size or blocks_size != 32 * manifest.blocks:
            raise UpdateError("size", "the job's sizes are not those of the artifact")
        if not slots.ready(artifact):
            await _fill(job, slots, fetcher, manifest, artifact)
    except OSError as error:
        raise UpdateError("storage", str(error)) from None
    finally:
        await fetcher.close()
        gc.collect()
    return str(manifest.version)


async def _whole(fetcher: "Any", file: int, size: int) -> bytearray:
    """A small file of the stream, in memory."""
    content = bytearray(size)

    def keep(number: int, data: bytes) -> None:
        content[number * LIMITS.BLOCK : number * LIMITS.BLOCK + len(data)] = data

    await fetcher.fetch(file, size, keep)
    return content


async def _fill(job: "Any", slots: Slots, fetcher: "Any", manifest: "Any", artifact: str) -> None:
    from edgeagent.ota.writer import Writer

    folder = slots.prepare(artifact)
    hashes = await _whole(fetcher, 1, 32 * manifest.blocks)
    writer = Writer(folder, manifest, hashes)
    reported = 0

    async def tick(done: int, total: int) -> None:
        nonlocal reported
        percent = done * 100 // total
        if percent >= reported + _PERCENT_STEP and done < total:
            reported = percent
            await _progress(job, percent, step="download", version=manifest.version)

    try:
        first = await writer.resume()
        missing = manifest.size - first * LIMITS.BLOCK
        if missing > 0 and missing > slots.free():
            raise UpdateError("space", "%d bytes are missing, %d are free" % (missing, slots.free()))
        if missing > 0:
            await fetcher.fetch(2, manifest.size, writer.block, first, tick)
    finally:
        writer.close()
    await writer.finish()
    slots.complete(artifact, manifest.version, manifest.security_version)


async def _prove(job: "Any", root: str, status: dict) -> None:
    """In the new version: confirm it once the service took a message from it and the application says it is well.

    Returns when confirmed. Rolls back and resets at the deadline, when the service has ended the job, or when this is
    not the new version after all.
    """
    agent = job.agent
    start = clock.ticks()
    reason = None
    if trial.Running.known and trial.Running.slot != status["active"]:
        reason = "slot %s could not be booted" % status["active"]
    said = False
    why = "no answer from the service"
    while reason is None:
        try:
            if not said:
                await job.progress(None, step="trial", version=status["version"])
                said = True
            good, why = await agent.healthy()
            if good and trial.confirm(root):
                return
        except TransportError as error:
            why = str(error)
        except Refused as error:
            reason = "the service ended the job: %s" % error
            break
        if trial.status(root)["state"] != "trial":
            return
        if clock.elapsed_ms(start) >= status["deadline_s"] * 1000:
            reason = "not confirmed within %d s: %s" % (status["deadline_s"], why)
            break
        await asyncio.sleep(_RETRY_S)
    log.error("ota", "%s", reason)
    trial.failed(root, reason)
    job.reset("rollback")
