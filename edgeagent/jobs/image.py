# SPDX-License-Identifier: Apache-2.0
"""Job operation `image` (Linux): a whole system by a RAUC bundle, proved in the new system or taken back. And going
back to the system before: of `rollback`, the kind "image".

    {"operation": "image", "url": "https://…/system.raucb", "size": 104857600, "version": "2.0.0",
     "sha256": hex, "rate": bytes a second}        sha256 and rate may be missing
`url` may be a path below image.folder of agent.json; ota/gate.py has more members. Loaded by edgeagent/image.py, whose
record says how far it is:

    record, for this execution     run()
    none of its own                check, download (resuming), have RAUC check the signature, begin;
                                   of `rollback`: see that it is kept, begin
    on trial, not installed        have RAUC install it, or see that it has; make what was kept the next to be booted
    on trial, installed            restart the machine
    on trial, booted               as `ota`: wait for the service and for health, mark-good: SUCCEEDED
    confirmed                      SUCCEEDED {"version", "previous"}
    rolled back                    FAILED "rolled-back: …", once the old system runs

What a document says is not signed; what it names is. So nothing here can be switched off by a document: an older
version than the booted one's is refused, as is one without an order. Going back on purpose is `rollback`, to what ran
here and was not touched since, or a bundle with a higher version and the old content.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgeagent.compat import exists, make_dirs, remove_tree, sync_dir
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.ota import gate, kinds, ranges
from edgeagent.ota.handover import prove
from edgeagent.ota.verify import before
from edgeagent.ports.linux import programs
from edgeagent.space import free

_MOST = 1 << 40
_READY_S = 10.0  # RAUC's service may begin after the agent
_BLOCK = 4096
_UNSURE = ranges.PART * _BLOCK  # bytes at the end of a file that a power cut may have damaged: those of one request


def _parse(document: dict[str, Any], folder: str | None) -> str:
    """The path of a bundle that is on this machine already; "" if it has to be fetched. Raises JobRejected."""
    size, version, digest = document.get("size"), document.get("version"), document.get("sha256")
    if type(size) is not int or not 0 < size <= _MOST:
        raise JobRejected("size: must be the number of bytes of the bundle")
    if not isinstance(version, str) or not 0 < len(version) <= 64:
        raise JobRejected("version: must be text of 1 to 64 characters")
    if digest is not None and not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
        raise JobRejected("sha256: must be 64 hexadecimal digits in lower case")
    rate = document.get("rate", 0)
    if type(rate) is not int or rate < 0:
        raise JobRejected("rate: must be bytes a second")
    url: Any = document.get("url")
    if isinstance(url, str) and url.startswith("https://"):
        return ""
    if not isinstance(url, str) or not url.startswith("/") or "\0" in url:
        raise JobRejected("url: must be https, or an absolute path")
    path = os.path.realpath(url)
    if not folder or not path.startswith(os.path.realpath(folder) + "/"):
        raise JobRejected("url: is not below image.folder of agent.json")
    if not os.path.isfile(path):
        raise JobRejected("url: there is no such file")
    return path


async def run(job: Any) -> dict[str, Any]:
    """Handler. Raises JobRejected for a bad document, UpdateError with a code of docs/ota.md for what went wrong."""
    part = job.agent.part("image")
    await part.settle()  # also what a job before, which was cancelled, is still undoing: the record is one
    if part.status()["job"] != kinds.name(job.id, job.execution, job.queued):
        await (_back if job.document["operation"] == "rollback" else _prepare)(job, part)
    status = part.status()
    if status["state"] == "trial":
        try:
            if not status["boots"]:
                await _install(job, part, status)
            else:
                await prove(job, part, status)
        except asyncio.CancelledError:
            if job.revoked:
                part.drop()
                _tidy(part)
            raise
        except (OSError, UpdateError) as error:
            await part.give_up(str(error))
            _tidy(part)
            raise
    _tidy(part)
    status = part.status()
    if status["state"] == "confirmed":
        return {"version": status["version"], "previous": status["previous_version"] or "unknown"}
    raise UpdateError("rolled-back", status["reason"])


def _tidy(part: Any) -> None:
    """The outcome is certain: the bundle is not needed any more."""
    if exists(part.root + "/bundle"):
        remove_tree(part.root + "/bundle")
        sync_dir(part.root)


async def _prepare(job: Any, part: Any) -> None:
    """Get the bundle, and refuse it before anything is written or marked."""
    document, agent = job.document, job.agent
    path = _parse(document, part.folder)
    gate.idle(agent.port)
    system = await part.rauc.idle(_READY_S)
    version, running = document["version"], system.version(system.booted)
    _newer(version, running)
    await gate.wait(job, "download", version)
    try:
        path = path or await _download(job, part.root + "/bundle")
        if os.stat(path).st_size != document["size"]:
            raise UpdateError("size", "the bundle has %d bytes" % os.stat(path).st_size)
        if "sha256" in document and await asyncio.to_thread(_sha256, path) != document["sha256"]:
            raise UpdateError("file-hash", "the bundle is not the one of sha256")
        bundle = await part.rauc.info(path)
        if bundle.compatible != system.compatible:
            raise UpdateError("board", "%s, here %s" % (bundle.compatible, system.compatible))
        if bundle.version != version:
            raise UpdateError("version", "%s, in the job %s" % (bundle.version or "none", version))
        what = [bundle.compatible, bundle.version, bundle.images]
        part.begin(job, system, version, bundle=what, path=path)
    except UpdateError as error:
        if error.code not in ("transfer", "rauc"):
            _tidy(part)  # what was fetched is not what is wanted; else the next try goes on with it
        raise
    except OSError as error:
        raise UpdateError("storage", str(error)) from None


async def _back(job: Any, part: Any) -> None:
    """See that the system before is kept, and wait for the gates: once it is marked, any restart boots it."""
    gate.idle(job.agent.port)
    system = await part.rauc.status()
    version = system.version(part.kept(system)) or "unknown"
    if job.document.get("version", version) != version:
        raise JobRejected("version: %s is kept" % version)
    await gate.wait(job, "restart", version)
    system = await part.rauc.status()
    try:
        part.begin(job, system, version, part.kept(system))
    except OSError as error:
        raise UpdateError("storage", str(error)) from None


def _newer(version: str, running: str | None) -> None:
    """Raises UpdateError unless `version` may follow the one that is booted, if that is known."""
    if version == running:
        raise UpdateError("same-version", version)
    if running and before(version, running) is not False:
        raise UpdateError("downgrade", "%s, here %s" % (version, running))


async def _install(job: Any, part: Any, status: dict[str, Any]) -> None:
    """Does not return if all goes well: the machine restarts."""
    if not status["installed"]:
        await part.install(_tenths(job, "install", status["version"]))
    if not status["kept"]:
        await gate.wait(job, "restart", status["version"])
    await job.progress(100, step="restart", version=status["version"])
    await part.restart()


def _tenths(job: Any, step: str, version: str) -> Any:
    """Coroutine function that reports percents, once in ten percent."""
    told = -1

    async def tick(percent: int) -> None:
        nonlocal told
        if percent // 10 != told:
            told = percent // 10
            await job.progress(percent, step=step, version=version)

    return tick


class _Durable:
    """Appends blocks to a file. A thread syncs it meanwhile: a power cut can have damaged _UNSURE bytes at its end, a
    kill of the agent none.
    """

    def __init__(self, file: Any, thread: ThreadPoolExecutor) -> None:
        """thread: has one worker."""
        self._file, self._thread = file, thread
        self._begin()

    def _begin(self) -> None:
        """Have all that was written until now synced."""
        self._blocks = 0  # since then
        self._last = self._thread.submit(os.fsync, self._file.fileno())

    def keep(self, number: int, data: bytes) -> None:
        """A sink of ranges.fetch. Raises OSError."""
        self._file.write(data)
        self._file.flush()
        self._blocks += 1
        if self._blocks == ranges.PART // 2:  # a server without ranges brings all in one request
            self._last.result()  # blocks only while the disk is slower than the network
            self._begin()

    async def flush(self) -> None:
        """All is durable then. Raises OSError."""
        await asyncio.wrap_future(self._last)
        if self._blocks:
            self._begin()
            await asyncio.wrap_future(self._last)


async def _download(job: Any, folder: str) -> str:
    """The path of the bundle, whose bytes are durable. Goes on with what an earlier try, or another job, has left."""
    document = job.document
    size: int = document["size"]
    what = "%s %d %s" % (document["url"].partition("?")[0], size, document.get("sha256"))
    path = folder + "/" + hashlib.sha256(what.encode()).hexdigest()[:32]
    make_dirs(folder)
    for name in os.listdir(folder):
        # RAUC has taken what it was given from an agent that is not root.
        if folder + "/" + name != path or not os.access(path, os.W_OK):
            remove_tree(folder + "/" + name)
    with open(path, "ab") as file, ThreadPoolExecutor(1) as thread:  # noqa: ASYNC230 - one block at a time
        sync_dir(folder)
        have = min(file.tell(), size)
        kernel = programs.kernel_boot()
        if job.data.get("kernel") != kernel:
            have = max(have - _UNSURE, 0)
        if have < size:
            have -= have % _BLOCK
        file.truncate(have)
        job.checkpoint(kernel=kernel)  # not before what is unsure has gone: this process may be killed in between
        missing = size - have - free(folder)
        if missing > 0:
            raise UpdateError("space", "%d bytes missing" % missing)
        report = _tenths(job, "download", document["version"])
        durable = _Durable(file, thread)

        async def tick(percent: int) -> None:
            await durable.flush()
            await report(percent)

        blocks = bytearray((size + 8 * _BLOCK - 1) // (8 * _BLOCK))
        for number in range(-(-have // _BLOCK)):
            blocks[number >> 3] |= 1 << (number & 7)
        rate = document.get("rate", 0)
        await ranges.fetch(job.agent, document["url"], 0, size, durable.keep, blocks, tick, rate)
        await tick(100)
    return path


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
