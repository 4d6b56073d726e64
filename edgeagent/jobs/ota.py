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
PATCH = "/patch"  # of ota/delta.py; PATCH + ".why" says for which execution there is none, and why
_PARTS = ("envelope", "blocks", "payload")


async def run(job: "Any", source: "Any" = None, approve: "Any" = None, install: "Any" = None) -> "dict[str, Any]":
    """Handler. source: takes the place of `fetch`. approve: coroutine function of the Writer that has the last
    word before the new version may run. install: takes the place of all that happens before the restart, a coroutine
    function of the job, the slots' folder and the execution. Returns {"version", "previous"} of a confirmed update.

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
        if status["boots"]:
            await prove(job, kinds.target(port, kind), status)
        else:
            job.reset("update")
    reason = _why(root, own)
    # Only now, in the next boot: whatever fails after the activation must not end the job.
    _tidy(root)
    status = trial.status(kinds.folder(port, kind))
    if status["state"] == "confirmed":
        if kind == kinds.KINDS[0]:
            from edgeagent.jobs import trust

            trust.keep_floor(job.agent.config.trust, status["floor"])
        done = {"version": status["version"], "previous": status["previous_version"] or "none"}
        if reason:
            done["delta"] = reason
        return done
    raise UpdateError("rolled-back", status["reason"] or "no restart")


def _why(root: str, own: str) -> str:
    """Why execution `own` goes without a delta, "" if it does not."""
    before, _, reason = (read_file(root + PATCH + ".why", 512) or b"").decode().partition("\n")
    return reason if before == own else ""


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
    if "deltas" in document:
        from edgeagent.ota.delta import check

        check(document)
        del check
        unload(["edgeagent.ota.delta"])

    agent = job.agent
    if job.data.get("tries", 0) >= trial.MAX_BOOTS:
        # An application that deletes the state deletes what is known of its trial.
        raise UpdateError("rolled-back", "its trials left no trace")
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
        from edgeagent.ota import gate

        await gate.wait(job, "download", manifest.version)
        del gate
        unload(["edgeagent.ota.gate"])
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

        details = {"step": "download", "version": manifest.version}

        def tick(percent: int) -> Any:
            return job.progress(percent, **details)

        try:
            unload(["edgeagent.ota.transfer"])
            await writer.resume()
            unload(["edgeagent.ota.index", "edgeagent.ota.store"])
            missing = manifest.size
            for bits in writer.have:
                missing -= 4096 * bin(bits).count("1")
            if missing > target.free():
                raise UpdateError("space", "%d bytes missing" % (missing - target.free()))
            reason = _why(root, own)
            if "deltas" in document and missing and not reason:
                from edgeagent.ota import delta

                reason = await delta.run(
                    job, root + PATCH, target, artifact, manifest.size, missing, writer, source, tick
                )
                del delta
                unload(["edgeagent.ota.delta", "edgeagent.ota.transfer"])
                if reason:
                    # Before the patch goes: after a reset it must not be fetched again.
                    try:
                        write_atomic(root + PATCH + ".why", ("%s\n%s" % (own, reason)).encode())
                    except OSError:
                        pass  # no space, perhaps
                    _tidy(root, (PATCH,))
            if reason:
                details["delta"] = reason
            await source(job, stream, 2, manifest.size, writer.block, writer.have, tick)
            await writer.finish()
            if approve:
                await approve(writer)
        finally:
            writer.close()
        target.complete(artifact, manifest.version, manifest.security_version)
    except OSError as error:
        raise UpdateError("storage", str(error)) from None
    finally:
        if listed:
            listed.close()
    await restart(job, target, own, manifest.version, running)


async def restart(job: "Any", target: "Any", own: str, version: str, running: "str | None") -> None:
    """Restart into the version in the inactive slot, on trial, when the gates are open. Returns never.

    running: the version before. Raises UpdateError, JobFailed.
    """
    from edgeagent.ota import gate, safety

    agent = job.agent
    await gate.wait(job, "restart", version)
    await job.progress(100, step="restart", version=version)
    job.checkpoint(tries=job.data.get("tries", 0) + 1)
    try:
        if agent.config_path:
            safety.keep(agent.port.slots_dir, agent.config_path, own)
        target.activate(version, own, agent.config.confirm_within, running)
    except OSError as error:
        raise UpdateError("storage", str(error)) from None
    try:
        job.reset("update")
    except Exception as error:
        # Still the old version; nobody is to find a trial whose job has failed.
        trial.failed(target.root, "no restart: " + exc_text(error))
        raise


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


async def prove(job: "Any", target: "Any", status: "dict[str, Any]") -> None:
    """In the new version: confirm it once the service took a message from it and the application says it is well.

    Returns when the trial is over; its deadline is guard.py's. Rolls back and resets when the service has ended the
    job, or when this is not the new version after all.
    """
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
