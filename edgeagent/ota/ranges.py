# SPDX-License-Identifier: Apache-2.0
"""Blocks of an object over HTTPS, by ranges (RFC 9110, 14): presigned URLs of S3, and servers that are less capable.

A request is for at most PART blocks: boards have room for one TLS session, so MQTT pauses meanwhile, and comes up in
between to report and to hear of a cancelled job.
"""

import asyncio
import json
import os

from edgeagent import clock, https, topics
from edgeagent.compat import Any, const, wait_for
from edgeagent.errors import ProtocolError, Refused, TransportError, UpdateError
from edgeagent.jobs.journal import Journal

PART = 256  # blocks of one request, 1 MiB
_BLOCK = const(4096)
_OUTAGE_S = const(3600)
_MOST = const(25165824)  # bytes of an object: as of a stream
_TRIES = const(7)  # in a row without a block, each once there is a link
_LATER_S = const(300)  # as the server wishes
_SLOW_MS = const(120000)  # for 4096 bytes of a body, beyond what `rate` makes of it


async def _renewed(agent: Any, url: str) -> str:
    """The URL of the same object that the job's document has now: the service signs anew for each who reads it.

    "" if there is none. Raises TransportError, ProtocolError.
    """
    job: Any = Journal(agent.port.state_dir + "/job.json").read()
    body = {"executionNumber": job["executionNumber"], "includeJobDocument": True}
    try:
        reply = await agent.requests.call(topics.jobs(agent.thing_name, job["jobId"] + "/get"), body)
    except Refused:
        return ""
    # Wherever in the document: only what is behind the path differs. JSON has no need to escape anything in an URL.
    path = '"%s?' % url.partition("?")[0]
    _, found, rest = json.dumps(reply).partition(path)
    return found and found[1:] + rest.partition('"')[0]


async def fetch(
    agent: Any, url: str, start: int, size: int, sink: Any, have: Any = None, tick: Any = None, rate: int = 0
) -> None:
    """Give the blocks of `size` bytes from `start` of the object at `url` to `sink`; as Fetcher.fetch.

    Raises ConfigError for the URL, UpdateError "transfer", and what the sink raises.
    """
    total = (size + _BLOCK - 1) // _BLOCK
    have = have or bytearray((total + 7) // 8)
    held = bytearray(_BLOCK)
    slow = _SLOW_MS + (2000 * _BLOCK // rate if rate else 0)
    signed, renewed = url, False
    etag = b""
    tries = moved = number = end = later = 0
    skip = fill = got = 0  # bytes of the body before the block; of the block; of all bodies, for `rate`
    since = mark = clock.ticks()

    def missing(at: int) -> bool:
        return not have[at >> 3] >> (at & 7) & 1

    def begin(status: int, head: bytes) -> None:
        nonlocal etag, skip, end, mark
        mark = clock.ticks()
        tag = https.field(head, b"etag")
        if etag and tag != etag:
            raise UpdateError("transfer", "the object has changed")
        etag = tag
        length = int(https.field(head, b"content-length"))
        if status == 200:
            # It does not know ranges: read through what is before, and up to the last that is wanted.
            skip, end = first, total
            while not missing(end - 1):
                end -= 1
            if not start + size <= length <= max(_MOST, start + size):
                raise UpdateError("size", "the object has %d bytes" % length)
        elif (
            status != 206
            or length != last - first
            or b"bytes %d-%d/" % (first, last - 1) != https.field(head, b"content-range").partition(b"/")[0] + b"/"
        ):
            raise UpdateError("transfer", "not the range that was asked for")

    def take(piece: Any) -> float:
        nonlocal skip, fill, number, got, tries, mark, renewed
        if (got % _BLOCK + len(piece)) // _BLOCK:
            mark = clock.ticks()
        elif clock.elapsed_ms(mark) > slow:
            raise TransportError("too slow")
        got += len(piece)
        view = memoryview(piece)[skip:]
        skip = max(skip - len(piece), 0)
        while view and number < end:
            want = min(_BLOCK, size - number * _BLOCK)
            part = view[: want - fill]
            held[fill : fill + len(part)] = part
            fill += len(part)
            view = view[len(part) :]
            if fill == want:
                fill = 0
                if missing(number):
                    try:
                        sink(number, memoryview(held)[:want])
                    except OSError as error:  # not the link's
                        raise UpdateError("storage", str(error)) from None
                    have[number >> 3] |= 1 << (number & 7)
                    tries = 0
                    renewed = False
                number += 1
        if number == end:
            raise TransportError("")  # what may still come is not wanted
        return max(got * 1000 // rate - clock.elapsed_ms(since), 0) / 1000 if rate else 0

    while True:
        number = fill = skip = 0
        while number < total and not missing(number):
            number += 1
        if number == total:
            return
        end = number
        while end < min(total, number + PART) and missing(end):
            end += 1
        first, last = start + number * _BLOCK, start + min(end * _BLOCK, size)
        before = number
        headers = "Range: bytes=%d-%d\r\n" % (first, last - 1)
        # A weak one says nothing about bytes; with a control character it would be another header.
        if etag[:1] == b'"' and min(etag) > 32 and max(etag) < 127:
            headers += "If-Range: %s\r\n" % etag.decode()
        try:
            await wait_for(agent.connected.wait(), _OUTAGE_S)
            status, head, text = await https.ask(agent, "GET", url, headers, None, 0, take, begin)
            why = "HTTP %d" % status
            if status // 100 == 3:
                moved += 1
                url = https.field(head, b"location").decode()
                if moved > 2 or url[:8] != "https://":
                    raise UpdateError("transfer", why + ": redirected too often, or not to https")
            elif status // 100 != 2 and status < 500 and status not in (408, 429):
                code = https.element(text, b"<Code>")
                why += " " + code
                # A gate, or the download itself, may last longer than a presigned URL, or than who signed it.
                if (status == 403 or code == "ExpiredToken") and not renewed:
                    await wait_for(agent.connected.wait(), _OUTAGE_S)
                    url = signed = await _renewed(agent, signed)
                    moved = 0
                    renewed = True
                else:
                    url = ""
                if not url:
                    raise UpdateError("transfer", why)
            else:
                later = min(int(https.field(head, b"retry-after") or 0), _LATER_S)
        except asyncio.TimeoutError:
            raise UpdateError("transfer", "no link") from None
        except ValueError:
            pass  # a Location that is no text; a date as Retry-After
        except (ProtocolError, TransportError) as error:
            why = str(error)
        if number > before:
            since = clock.ticks()
            got = 0
            if tick:
                await tick(100 * number // total)
        else:
            tries += 1
            if tries >= _TRIES:
                raise UpdateError("transfer", why)
            # A fleet that was refused together comes back one by one, after 2 to 4 minutes in all.
            await asyncio.sleep(max(later, ((os.urandom(1)[0] | 128) << tries) / 128))
            later = 0
