# SPDX-License-Identifier: Apache-2.0
"""Job operation "ota": update the application, prove the new version, or go back and say why.

Document: {"operation": "ota", "stream": ID, "artifact": {"envelope": bytes, "blocks": bytes, "payload": bytes}}, and
optionally "form": "json" (of the stream's messages, for a service without CBOR), "rate": bytes a second at most, and
instead of "stream" "urls": {"envelope": URL, "blocks": URL, "payload": URL} or "url": URL of the three one after the
other, all https; "deltas": [{"from": hex id of an artifact that may run, "bytes": of the patch, "file": its number in
the stream, 3 to 255, or its "url"}, …] (ota/delta.py).
The slots' state, not this job's journal, is the truth about what happened. It names the execution it belongs to, so
`run` may be called again after a cut anywhere and goes on from there:

    state of the slots, for this execution     run()
    none of its own                            fetch and verify into the inactive slot (resuming), activate, reset
    on trial, not booted yet                   reset
    on trial, booted                           report, wait for health, confirm: SUCCEEDED; guard.py ends it in time
    confirmed                                  SUCCEEDED
    rolled back                                FAILED "rolled-back: …"
"""

import sys

from edgeagent.compat import MICROPYTHON, Any, exists, read_file, remove_tree, sync_file, write_atomic
from edgeagent.errors import UpdateError
from edgeagent.jobs.registry import unload
from edgeagent.ota import kinds

RESUME = True
# Below the slots while a download is going on, so that a reset does not cost more than a block: the envelope, after the
# execution it was fetched for, and the list of hashes, which is known by its own.
ENVELOPE = "/envelope"
HASHES = "/hashes"
PATCH = "/patch"  # of ota/delta.py; PATCH + ".why" says for which execution there is none, and why
PARTS = ("envelope", "blocks", "payload")


async def run(job: "Any", source: "Any" = None, approve: "Any" = None, install: "Any" = None) -> "dict[str, Any]":
    """Handler. source: takes the place of `fetch`. approve: coroutine function of the Writer that has the last
    word before the new version may run. install: takes the place of all that happens before the restart, a coroutine
    function of the job, the slots' folder and the execution. Returns {"version", "previous"} of a confirmed update.

    Raises JobRejected for a bad document, UpdateError with a code of docs/ota.md for what went wrong.
    """
    port = job.agent.port
    root = port.slots_dir
    own = kinds.name(job.id, job.execution, job.queued)
    kind, status = kinds.find(port, own)
    if not kind:
        client = job.agent.client
        try:
            if MICROPYTHON and "stream" in job.document and job.document.get("form") != "json":
                # Room for a packet with a block, taken while the heap has some in one piece. One in JSON is larger.
                client.spare = bytearray(4096 + 400)
            if install:
                await install(job, root, own)
            else:
                await _install(job, root, own, source or fetch, approve)
        except UpdateError:
            _tidy(root)
            raise
        finally:
            client.spare = None
    elif status["state"] == "trial":
        from edgeagent.ota.handover import prove

        await prove(job, kinds.target(port, kind), status)
    reason = _why(root, own)
    # Only now, in the next boot: whatever fails after the activation must not end the job.
    _tidy(root)
    from edgeagent.ota.handover import outcome

    done = outcome(job, kind)
    if reason:
        done["delta"] = reason
    return done


def _why(root: str, own: str) -> str:
    """Why execution `own` goes without a delta, "" if it does not."""
    before, _, reason = (read_file(root + PATCH + ".why", 512) or b"").partition(b"\n")
    try:
        return reason.decode() if before == own.encode() else ""
    except ValueError:
        return ""  # it has decayed


def _tidy(root: str, names: "tuple[str, ...]" = (PATCH, PATCH + ".why", ENVELOPE, HASHES)) -> None:
    """The outcome is certain: nothing of the download is needed any more."""
    for name in names:
        try:
            remove_tree(root + name)
        except OSError:
            pass  # the next update replaces it


async def _install(job: "Any", root: str, own: str, source: "Any", approve: "Any") -> None:
    """Put the verified artifact into the inactive slot, going on where an earlier try stopped, and restart into it.

    Does not return if all goes well. Phases follow each other, and what a phase brought into memory is dropped after
    it: a board has no room for all at once.
    """
    stream = job.document.get("stream", "")
    loaded = list(sys.modules)
    listed: "Any" = None
    try:
        from edgeagent.ota import admit

        manifest, artifact, target, running = await admit.admit(job, own, root + ENVELOPE, source)
        del admit
        unload((), loaded)
        place = target.prepare(artifact)
        writer: "Any" = None

        def keep(at: int, data: bytes) -> None:
            listed.seek(at * 4096)
            listed.write(data)

        for tries in (1, 0):
            # What is there may be of another artifact, or a part.
            if not tries or not exists(root + HASHES):
                with open(root + HASHES, "wb") as listed:  # noqa: ASYNC230  no other kind of file on boards
                    await source(job, stream, 1, 32 * (manifest.blocks + len(manifest.files)), keep)
                    sync_file(listed)
                unload((), loaded)
            listed = open(root + HASHES, "rb")  # noqa: ASYNC230
            try:
                writer = target.writer(place, manifest, listed)
                break
            except UpdateError:
                listed.close()
                if not tries:
                    raise

        details = {"step": "download", "version": manifest.version}

        def tick(percent: int) -> Any:
            return job.progress(percent, **details)

        try:
            await writer.resume()
            unload((), loaded)
            missing = manifest.size
            for bits in writer.have:
                missing -= 4096 * bin(bits).count("1")
            if "deltas" not in job.document:
                _tidy(root, (PATCH,))  # of a job that was cancelled
            if missing > target.free():
                raise UpdateError("space", "%d bytes missing" % (missing - target.free()))
            reason = _why(root, own)
            if "deltas" in job.document and missing and not reason:
                from edgeagent.ota import delta

                reason = await delta.run(
                    job, root + PATCH, target, artifact, manifest.size, missing, writer, source, tick
                )
                del delta
                unload((), loaded)
                if reason:
                    # Before the patch goes: after a reset it must not be fetched again.
                    try:
                        write_atomic(root + PATCH + ".why", ("%s\n%s" % (own, reason)).encode())
                    except OSError:
                        pass  # no space, perhaps
                    _tidy(root, (PATCH,))
            if reason:
                details["delta"] = reason
            kind = manifest.type or kinds.KINDS[0]
            target = None  # its code: there is none to spare now
            unload((), loaded)
            await source(job, stream, 2, manifest.size, writer.block, writer.have, tick)
            unload((), loaded)
            await writer.finish()
            if approve:
                await approve(writer)
        finally:
            writer.close()
            writer = None
            unload((), loaded)
        target = kinds.target(job.agent.port, kind)
        target.complete(artifact, manifest.version, manifest.security_version)
    except OSError as error:
        raise UpdateError("storage", str(error)) from None
    finally:
        if listed:
            listed.close()
    from edgeagent.ota.handover import restart

    await restart(job, target, own, manifest.version, running, manifest.expires)


async def fetch(
    job: "Any", stream: str, file: "Any", size: int, sink: "Any", have: "Any" = None, tick: "Any" = None
) -> None:
    """As Fetcher.fetch, for one part of the artifact; nothing of the transfer is left in use afterwards.

    file: its number, or an URL.
    """
    document = job.document
    rate = document.get("rate", 0)
    web = document.get("urls") or document.get("url")
    if web:
        from edgeagent.ota.ranges import fetch as get

        start = 0
        if type(file) is str:
            web = file
        elif type(web) is not str:
            web = web[PARTS[file]]
        else:
            for part in PARTS[:file]:
                start += document["artifact"][part]
        await get(job.agent, web, start, size, sink, have, tick, rate)
        return
    from edgeagent.ota.transfer import Fetcher

    fetcher = Fetcher(job.agent, stream, document.get("form", "cbor"), rate)
    try:
        await fetcher.fetch(file, size, sink, have, tick)
    finally:
        await fetcher.close()
