# SPDX-License-Identifier: Apache-2.0
"""Job operation "ota": update the application, prove the new version, or go back and say why.

Document: {"operation": "ota", "stream": ID, "artifact": {"envelope": bytes, "blocks": bytes, "payload": bytes}}, and
optionally "form": "json" (of the stream's messages, for a service without CBOR), "rate": bytes a second at most, and
instead of "stream" "urls": {"envelope": URL, "blocks": URL, "payload": URL} or "url": URL of the three one after the
other, all https.
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

from edgeagent.compat import (
    MICROPYTHON,
    Any,
    exc_text,
    exists,
    make_dirs,
    read_file,
    remove_tree,
    sync_file,
    write_atomic,
)
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.jobs.registry import unload
from edgeagent.ota import kinds, trial

RESUME = True
# Below the slots while a download is going on, so that a reset does not cost more than a block: the envelope, after the
# execution it was fetched for, and the list of hashes, which is known by its own.
ENVELOPE = "/envelope"
HASHES = "/hashes"
_PARTS = ("envelope", "blocks", "payload")


async def run(job: "Any", source: "Any" = None, approve: "Any" = None) -> "dict[str, Any]":
    """Handler. source: takes the place of `fetch`. approve: coroutine function of folder and manifest that has the last
    word before the new version may run. Returns {"version", "previous"} of a confirmed update.

    Raises JobRejected for a bad document, UpdateError with a code of docs/ota.md for what went wrong.
    """
    port = job.agent.port
    root = port.slots_dir
    own = "%s/%d" % (job.id, job.execution)
    kind, status = kinds.find(port, own)
    if not kind:
        client = job.agent.client
        try:
            if MICROPYTHON and "stream" in job.document:
                # Room for a packet with a block, taken while the heap has some in one piece.
                client.spare = bytearray(4096 + 400)
            await _install(job, root, own, source or fetch, approve)
        except UpdateError:
            _tidy(root)
            raise
        finally:
            client.spare = None
    elif status["state"] == "trial":
        if status["boots"]:
            await prove(job, kind, status)
        else:
            job.reset("update")
    # Only now, in the next boot: whatever fails after the activation must not end the job.
    _tidy(root)
    status = trial.status(kinds.folder(port, kind))
    if status["state"] == "confirmed":
        if kind == kinds.KINDS[0]:
            from edgeagent.jobs import trust

            trust.keep_floor(job.agent.config.trust, status["floor"])
        return {"version": status["version"], "previous": status["previous_version"] or "none"}
    raise UpdateError("rolled-back", status["reason"] or "no restart")


def _tidy(root: str) -> None:
    """The outcome is certain: nothing of the download is needed any more."""
    for name in (ENVELOPE, HASHES):
        try:
            remove_tree(root + name)
        except OSError:
            pass  # the next update replaces it


async def _install(job: "Any", root: str, own: str, source: "Any", approve: "Any") -> None:
    """Put the verified artifact into the inactive slot, going on where an earlier try stopped, and restart into it.

    Does not return if all goes well. Phases follow each other, and what a phase brought into memory is dropped after
    it: a board has no room for all at once.
    """
    document = job.document
    stream = document.get("stream", "")
    web = document.get("urls") or document.get("url")
    if not web and (
        type(stream) is not str or not 0 < len(stream) <= 128 or "/" in stream or "+" in stream or "#" in stream
    ):
        raise JobRejected("stream: must be the id of a stream")
    rate = document.get("rate", 0)
    if type(rate) is not int or rate < 0 or document.get("form", "cbor") not in ("cbor", "json"):
        raise JobRejected("rate, form: must be bytes a second, cbor or json")
    sizes: "list[int]" = []
    for member in _PARTS:
        try:
            size = document["artifact"][member]
            if web and (web if type(web) is str else web[member])[:8] != "https://":
                size = 0
        except (LookupError, TypeError):
            size = 0
        # The envelope is 4096 bytes at most; the manifest in it says what the others have to be.
        if type(size) is not int or size < 1 or (size > 4096 and not sizes):
            raise JobRejected("artifact.%s: must be a number of bytes, and urls https" % member)
        sizes.append(size)

    agent = job.agent
    listed: "Any" = None
    try:
        if "trust" in document:
            from edgeagent.jobs.trust import rotate

            await rotate(agent, document["trust"])
            del rotate
        make_dirs(root)
        name = own.encode() + b"\n"
        raw: "Any" = read_file(root + ENVELOPE, 8192) or b""
        if raw[: len(name)] == name:
            raw = raw[len(name) :]
        else:
            raw = bytearray()
            await source(job, stream, 0, sizes[0], lambda _, data: raw.extend(data))
            write_atomic(root + ENVELOPE, name + raw)
        from edgeagent.ota import verify

        trust = verify.load_trust(agent.config.trust)
        manifest, artifact = await verify.open_envelope(raw, trust)
        facts = dict(agent.config.device_configuration)
        facts.update(agent.facts())
        kind = manifest.type or "application"
        target = kinds.target(agent.port, kind)
        status = trial.status(target.root)
        # What runs and the least security version, of this kind: the trust file keeps that of the application.
        running = target.version(agent)
        verify.check(manifest, facts, running, max(trust.floor * (kind == kinds.KINDS[0]), status["floor"]))
        busy = kinds.find(agent.port)[1]
        if busy:
            raise UpdateError("busy", busy["version"])
        del trust, verify
        raw = None
        unload(["edgeagent.p256", "edgeagent.jobs.trust"])
        unload(["edgeagent.ota." + name for name in ("verify", "ecdsa", "rsa", "lms", "manifest", "transfer")])
        if sizes[1:] != [32 * (manifest.blocks + len(manifest.files)), manifest.size]:
            raise UpdateError("size", "not the artifact's")
        place = target.prepare(artifact)
        writer: "Any" = None

        def keep(at: int, data: bytes) -> None:
            listed.seek(at * 4096)
            listed.write(data)

        for tries in (1, 0):
            # What is there may be of another artifact, or a part.
            if not tries or not exists(root + HASHES):
                with open(root + HASHES, "wb") as listed:  # noqa: ASYNC230  no other kind of file on boards
                    await source(job, stream, 1, sizes[1], keep)
                    sync_file(listed)
            listed = open(root + HASHES, "rb")  # noqa: ASYNC230
            try:
                writer = target.writer(place, manifest, listed)
                break
            except UpdateError:
                listed.close()
                if not tries:
                    raise

        def tick(percent: int) -> Any:
            return job.progress(percent, step="download", version=manifest.version)

        try:
            await writer.resume()
            missing = manifest.size
            for bits in writer.have:
                missing -= 4096 * bin(bits).count("1")
            if missing > target.free():
                raise UpdateError("space", "%d bytes missing" % (missing - target.free()))
            await source(job, stream, 2, manifest.size, writer.block, writer.have, tick)
            await writer.finish()
            if approve:
                await approve(place, manifest)
        finally:
            writer.close()
        target.complete(artifact, manifest.version, manifest.security_version)
    except OSError as error:
        raise UpdateError("storage", str(error)) from None
    finally:
        if listed:
            listed.close()
    await job.progress(100, step="restart", version=manifest.version)
    target.activate(manifest.version, own, agent.config.confirm_within, running)
    try:
        job.reset("update")
    except Exception as error:
        # Still the old version; nobody is to find a trial whose job has failed.
        trial.failed(target.root, "no restart: " + exc_text(error))
        raise


async def fetch(
    job: "Any", stream: str, file: int, size: int, sink: "Any", have: "Any" = None, tick: "Any" = None
) -> None:
    """As Fetcher.fetch, for one part of the artifact; nothing of the transfer is left in use afterwards."""
    document = job.document
    rate = document.get("rate", 0)
    web = document.get("urls") or document.get("url")
    if web:
        from edgeagent.ota.ranges import fetch as get

        start = 0
        if type(web) is not str:
            web = web[_PARTS[file]]
        else:
            for part in _PARTS[:file]:
                start += document["artifact"][part]
        await get(job.agent, web, start, size, sink, have, tick, rate)
        return
    from edgeagent.ota.transfer import Fetcher

    fetcher = Fetcher(job.agent, stream, document.get("form", "cbor"), rate)
    try:
        await fetcher.fetch(file, size, sink, have, tick)
    finally:
        await fetcher.close()


async def prove(job: "Any", kind: str, status: "dict[str, Any]") -> None:
    """In the new version: confirm it once the service took a message from it and the application says it is well.

    Returns when the trial is over; its deadline is guard.py's. Rolls back and resets when the service has ended the
    job, or when this is not the new version after all.
    """
    reason = "the slot could not be booted"
    target = kinds.target(job.agent.port, kind)
    if target.runs(status):
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
    job.reset("rollback")
