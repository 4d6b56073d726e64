# SPDX-License-Identifier: Apache-2.0
"""What comes before the download of an update: the job document, the trust, the signed manifest, the gates."""

import sys

from edgeagent.compat import Any, make_dirs, read_file, write_atomic
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.jobs.ota import PARTS
from edgeagent.jobs.registry import unload
from edgeagent.ota import kinds, trial


def sizes_of(document: "dict[str, Any]") -> "list[int]":
    """Bytes of the PARTS. Raises JobRejected for a document that jobs/ota.py does not describe."""
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
    for member in PARTS:
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
    return sizes


async def admit(job: "Any", own: str, path: str, source: "Any") -> "tuple[Any, str, Any, str | None]":
    """(manifest, its hex SHA-256, target, the version that runs) of an update that may be downloaded.

    own: the execution. path: where its envelope is kept. source: see jobs.ota.run. The document's sizes are those of
    the manifest then. Raises JobRejected, UpdateError, OSError.
    """
    loaded = list(sys.modules)
    sizes = sizes_of(job.document)
    agent = job.agent
    if job.data.get("tries", 0) >= trial.MAX_BOOTS:
        # An application that deletes the state deletes what is known of its trial.
        raise UpdateError("rolled-back", "its trials left no trace")
    if "trust" in job.document:
        from edgeagent.jobs.trust import rotate

        await rotate(agent, job.document["trust"])
        del rotate
    unload((), loaded)
    make_dirs(path[: path.rfind("/")])
    name = own.encode() + b"\n"
    raw: "Any" = read_file(path, 8192) or b""
    if raw[: len(name)] == name:
        raw = raw[len(name) :]
    else:
        raw = bytearray()
        await source(job, job.document.get("stream"), 0, sizes[0], lambda _, data: raw.extend(data))
        write_atomic(path, name + raw)
        unload((), loaded)
    from edgeagent.ota import verify

    trust = verify.load_trust(agent.config.trust)
    manifest, artifact = await verify.open_envelope(raw, trust)
    facts = dict(agent.config.device_configuration)
    facts.update(agent.facts())
    target = kinds.target(agent.port, manifest.type or kinds.KINDS[0])
    running = target.version(agent)
    # The least security version is one of this kind: the trust file keeps that of the application.
    floor = trial.status(target.root)["floor"]
    if not manifest.type or manifest.type == kinds.KINDS[0]:
        floor = max(floor, trust.floor)
    verify.check(manifest, facts, running, floor)
    parts = (len(raw), 32 * (manifest.blocks + len(manifest.files)), manifest.size)
    if sum(sizes) != sum(parts):
        raise UpdateError("size", "not the artifact's")
    job.document["artifact"] = dict(zip(PARTS, parts))  # noqa: B905  MicroPython's has no `strict`
    del trust, verify
    raw = None
    unload((), loaded)
    from edgeagent.ota import gate

    gate.idle(agent.port)
    await gate.wait(job, "download", manifest.version, manifest.expires)
    return manifest, artifact, target, running
