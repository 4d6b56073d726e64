# SPDX-License-Identifier: Apache-2.0
"""An artifact from its stream into the inactive slot: envelope, signatures, rules, hash list, payload, read-back.

Loaded by the job handler when an update begins; an idle agent has no use for it.
"""

import gc

from edgeagent.compat import Any, const
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.jobs.registry import unload
from edgeagent.limits import LIMITS
from edgeagent.ota import MAX_PAYLOAD, trial
from edgeagent.ota.transfer import Fetcher

_PERCENT_STEP = const(10)


def arguments(document: "dict[str, Any]") -> "tuple[str, int, int, int]":
    """(stream, envelope bytes, blocks bytes, payload bytes). Raises JobRejected naming the member."""
    stream = document.get("stream")
    if not isinstance(stream, str) or not 0 < len(stream) <= 128 or "/" in stream or "+" in stream or "#" in stream:
        raise JobRejected("stream: must be the id of a stream")
    artifact = document.get("artifact")

    def size(member: str, most: int) -> int:
        value = artifact.get(member) if isinstance(artifact, dict) else None
        if type(value) is not int or not 0 < value <= most:
            raise JobRejected("artifact.%s: must be 1 to %d bytes" % (member, most))
        return value

    return (
        stream,
        size("envelope", LIMITS.MANIFEST_BYTES),
        size("blocks", MAX_PAYLOAD // LIMITS.BLOCK * 32),
        size("payload", MAX_PAYLOAD),
    )


async def fetch(job: Any, root: str) -> str:
    """Put the verified content of the job's artifact into the inactive slot, going on where an earlier try stopped.

    Returns its version. Raises JobRejected for a bad document, UpdateError, and CancelledError if the job was ended.
    """
    stream, envelope_size, blocks_size, payload_size = arguments(job.document)
    fetcher = Fetcher(job.agent, stream)
    try:
        manifest, artifact = await _open(job.agent, root, fetcher, envelope_size)
        # They have done their work, and a board needs their RAM for the rest.
        unload(["edgeagent.ota.verify", "edgeagent.ota.ecdsa", "edgeagent.ota.manifest"])
        if payload_size != manifest.size or blocks_size != 32 * manifest.blocks:
            raise UpdateError("size", "the job's sizes are not those of the artifact")
        await _fill(job, root, fetcher, manifest, artifact)
        return str(manifest.version)
    except OSError as error:
        raise UpdateError("storage", str(error)) from None
    finally:
        await fetcher.close()
        gc.collect()


async def _open(agent: Any, root: str, fetcher: Fetcher, size: int) -> "tuple[Any, str]":
    """The manifest of the stream's envelope, signed by those we trust and meant for this device, and its hash."""
    from edgeagent.ota import verify

    trust = verify.load_trust(agent.config.trust)
    manifest, artifact = await verify.open_envelope(await _whole(fetcher, 0, size), trust)
    floor = max(trust.floor, trial.status(root)["floor"])
    verify.check(manifest, agent.port.facts(), agent.version, floor)
    return manifest, artifact


async def _whole(fetcher: Fetcher, file: int, size: int) -> bytearray:
    """A small file of the stream, in memory."""
    content = bytearray(size)

    def keep(number: int, data: bytes) -> None:
        content[number * LIMITS.BLOCK : number * LIMITS.BLOCK + len(data)] = data

    await fetcher.fetch(file, size, keep)
    return content


async def _fill(job: Any, root: str, fetcher: Fetcher, manifest: Any, artifact: str) -> None:
    from edgeagent.ota.slots import Slots
    from edgeagent.ota.writer import Writer

    slots = Slots(root)
    folder = slots.prepare(artifact)
    writer = Writer(folder, manifest, await _whole(fetcher, 1, 32 * manifest.blocks))
    reported = 0

    async def tick(done: int, total: int) -> None:
        nonlocal reported
        percent = done * 100 // total
        if percent >= reported + _PERCENT_STEP:
            reported = percent
            await job.progress(percent, step="download", version=manifest.version)

    try:
        first = await writer.resume()
        missing = manifest.size - first * LIMITS.BLOCK
        if missing > 0:
            if missing > slots.free():
                raise UpdateError("space", "%d bytes needed, %d free" % (missing, slots.free()))
            await fetcher.fetch(2, manifest.size, writer.block, first, tick)
    finally:
        writer.close()
    await writer.finish()
    slots.complete(artifact, manifest.version, manifest.security_version)
