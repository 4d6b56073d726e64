# SPDX-License-Identifier: Apache-2.0
"""Job operation `diagnostics`: upload a bundle of facts, recent log lines and what collectors of the application give.

    {"operation": "diagnostics",
     "sections": ["memory", "log", "engine"],    default: all, those of the application last
     "limit": 65536,                             bytes of the bundle, default 1 MiB
     "urls": ["https://…", …]}                   or "url": presigned PUT, one for each MiB; default: over MQTT

The bundle is JSON lines: {"section": NAME, NAME: value}, for bytes {"section": NAME, "base64": text}, for what went
wrong in a section {"section": NAME, "error": reason}. Sections: time, facts, memory, boot, counters, attributes, slots,
crash, log, and those of `@agent.diagnostics`; the last line is {"section": "end", "resets": n}. How it is sent, what a
reset costs and the tree hash: edgeagent/upload.py. SUCCEEDED with {bundle, bytes, parts, sha256}.
"""

import asyncio
import binascii
import gc
import json
import os

from edgeagent import clock, log
from edgeagent.compat import MICROPYTHON, Any, const, exc_text, read_file, wait_for
from edgeagent.errors import JobFailed, JobRejected
from edgeagent.upload import PART, Upload

RESUME = True

_LIMIT = const(4096)  # bytes, the least
_NOTE = const(256)  # bytes kept free for what a section may have to say about itself
_FLASH = const(65536)  # bytes that stay free on the file system
_CHUNK_S = const(30)  # for one chunk of a collector
_RUNS = const(3)  # of a collector, if the device resets in it and no part was sent meanwhile
_SLICE = const(512)  # of text or bytes that is encoded at once


class _Step:
    """Awaitable for the next chunk of a generator, or for the result of a coroutine; `over` after the last.

    MicroPython cannot tell the two apart: both are generators there. What a coroutine yields to the event loop is None.
    """

    over = False

    def __init__(self, source: "Any") -> None:
        self.source = source

    def __iter__(self) -> "Any":
        return self

    __await__ = __iter__

    def __next__(self) -> None:
        try:
            value = self.source.send(None)
        except BaseException:  # StopIteration: its value is what we end with as well
            self.over = True
            raise
        if value is not None:
            raise StopIteration(value)


async def _next(step: _Step) -> "Any":
    return await step  # MicroPython makes tasks of coroutines only


def _line(name: str, key: str, value: "Any") -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        key = "base64"
        value = binascii.b2a_base64(value)[:-1].decode()
    return json.dumps({"section": name, key: value}).encode() + b"\n"


def _why(error: Exception, fresh: bool) -> str:
    if fresh and isinstance(error, MemoryError):
        raise error
    return exc_text(error) if str(error) else "no chunk within %d s" % _CHUNK_S


async def _section(upload: Upload, name: str, value: "Any", room: int, why: str, fresh: bool) -> None:
    """Put one section of at most `room` bytes. value: a function is called. What it does wrong is noted in the section.

    why: there is to be nothing but this note. fresh: the board has not been restarted for lack of memory yet, which
    helps more often than not.
    """
    step: "Any" = None
    while not why:
        if MICROPYTHON:
            gc.collect()  # the heap is crowded; a chunk wants a place in one piece
        try:
            if callable(value):
                value = value()
                if hasattr(value, "__await__"):
                    value = await wait_for(value, _CHUNK_S)
                if hasattr(value, "send"):
                    step = _Step(value)
            if step:
                # A task on both runtimes: a long generator lets the agent live between two chunks.
                value = await wait_for(_next(step), _CHUNK_S)
                if step.over and value is None:
                    break
        except Exception as error:  # the application's
            why = _why(error, fresh)
            break
        for chunk in value if isinstance(value, (list, tuple)) else (value,):
            size = len(chunk) if isinstance(chunk, (str, bytes, bytearray, memoryview)) else 0
            at = 0
            while not why:
                try:
                    line = _line(name, name, chunk[at : at + _SLICE] if size else chunk)
                except Exception as error:  # no JSON
                    why = _why(error, fresh)
                    break
                room -= len(line)
                if room < 0:
                    why = "cut: no room for more"
                    break
                await upload.put(line)
                at += _SLICE
                if at >= size:
                    break
        if not step or step.over:
            break
    if step and not step.over:
        try:
            step.source.close()
        except Exception as error:  # its own clean-up
            why = exc_text(error)
    if why:
        await upload.put(_line(name, "error", why[:120]))


def _sealed(path: str) -> "Any":
    """What a file of ota/trial.py holds, whether or not its seal does: the module is too large to be loaded."""
    raw = read_file(path, 2048)
    try:
        return json.loads(raw[8:]) if raw else None
    except ValueError:
        return "damaged"


def _sections(agent: "Any", wanted: "Any") -> "list[Any]":
    """(name, value or function, note) of all that is asked for, in an order that stays."""
    port = agent.port
    boot = {"bootId": port.boot_id(), "resetCause": port.reset_cause()}
    boot["history"] = (read_file(port.state_dir + "/boots", 256) or b"").decode()
    found: "list[Any]" = [
        ("time", clock.now()),
        ("facts", agent.facts()),
        ("memory", port.memory()),
        ("boot", boot),
        ("counters", agent.counters),
        ("attributes", agent.attributes.full()),
        ("slots", _sealed(port.slots_dir + "/state.json")),
        ("crash", _sealed(port.slots_dir + "/crash.json")),
        ("log", list(log.recent)),
    ]
    found += agent.collectors
    if wanted is None:
        return found
    names = [section[0] for section in found]
    found = [section for section in found if section[0] in wanted]
    for name in wanted:
        if name not in names:
            found.append((name, None))
    return found


async def run(job: "Any") -> "dict[str, Any]":
    """See the module. Raises JobRejected for the document, JobFailed."""
    document = job.document
    limit = document.get("limit", PART)
    wanted = document.get("sections")
    urls = [document["url"]] if "url" in document else document.get("urls")
    if type(limit) is not int or limit < _LIMIT:
        raise JobRejected("limit: must be %d bytes or more" % _LIMIT)
    if not isinstance(wanted or [], list) or not isinstance(urls or [], list) or urls == []:
        raise JobRejected("sections, urls: must be lists")
    upload = Upload(job, urls)
    ended = True
    try:
        if urls:
            limit = min(limit, len(urls) * PART)
        free = job.agent.port.memory().get("flash_free", PART + _FLASH) - _FLASH
        if free < PART:
            limit = min(limit, max(free, _LIMIT))
        # A limit that fell with the room the spool takes would move what is cut.
        limit = job.data.get("limit", limit)
        job.checkpoint(limit=limit, resets=job.data.get("resets", -1) + 1)
        await upload.resume()
        if not upload.over:
            await _collect(job, upload, wanted, limit)
        return await upload.finish()
    except (asyncio.CancelledError, MemoryError, SystemExit):
        ended = job.revoked  # else the journal has it that this goes on
        raise
    except OSError as error:
        raise JobFailed("flash: " + exc_text(error)) from None
    finally:
        upload.close()
        if ended:
            try:
                os.remove(upload.path)
            except OSError:
                pass  # there is none


async def _collect(job: "Any", upload: Upload, wanted: "Any", limit: int) -> None:
    sections = _sections(job.agent, wanted)
    count = len(sections)
    for at in range(upload.at, count):
        name, value = sections[at]
        upload.begin(at)
        room = limit - upload.bytes - upload.held + upload.skip - _NOTE * (count - at + 1)
        why = ""
        if callable(value):
            # What is left is shared with the collectors to come, so that one cannot leave the others nothing.
            room //= len([1 for section in sections[at:] if callable(section[1])])
            runs = job.data.get("runs", [0, 0, 0])
            runs = [at, upload.part, runs[2] + 1 if runs[:2] == [at, upload.part] else 1]
            if runs[2] > _RUNS:
                why = "the device was reset in it %d times" % _RUNS
            else:
                job.checkpoint(runs=runs)
        elif value is None and wanted:
            why = "there is none"
        await _section(upload, name, value, room, why, not job.data.get("restarts"))
    upload.begin(count)
    await upload.put(_line("end", "resets", job.data["resets"]))
