# SPDX-License-Identifier: Apache-2.0
"""Upload a stream of unknown length in parts of 1 MiB, over MQTT or to presigned URLs; a reset costs one part at most.

A part is spooled to one file of at most 1 MiB, made durable, noted in the job's journal with its hash, sent, and noted
as acknowledged; then the file takes the next one. So whatever the size of the stream, it needs 1 MiB of flash and a
few KB of RAM. After a reset:

    journal says                         what happens
    -----------------------------------  ----------------------------------------------------------------------------
    part N acknowledged (or nothing)     the caller makes the stream again from the item where N ended; the bytes of
                                         that item which are in parts 0 to N are skipped
    part N+1 spooled                     the same bytes are sent (again); a repeated part replaces itself

A caller whose items come out the same again (files, say) thus has the stream unbroken. One that differs has a seam:
that is the price of not spooling all of it, which a board has no room for.

Part 0 is the object NAME, part N > 0 is NAME.N. Over MQTT each is an upload of its own by Basic Ingest, in messages of
4 KB (`topics.upload`); with URLs, each is one PUT. S3 takes parts of less than 5 MiB no other way: a multipart upload
would refuse them.

Tree hash, as in Amazon S3 Glacier ("Computing Checksums"): SHA-256 of each part; then, level by level, SHA-256 of each
two neighbours' digests joined, a last one without neighbour moving up as it is; the one left is the root. It is folded
as parts are acknowledged: of N parts, as many digests are kept as N has bits that are set.
"""

import asyncio
import binascii
import gc
import hashlib

from edgeagent import topics
from edgeagent.compat import MICROPYTHON, Any, const, sync_file
from edgeagent.errors import JobFailed, TransportError
from edgeagent.mqtt.backoff import Backoff

PART = 1048576
_PIECE = const(4096)
_TRIES = const(6)  # in a row, each once there is a link


def _hex(digest: "Any") -> str:
    return binascii.hexlify(digest.digest()).decode()


class Upload:
    """Use: `await resume()`, then for each item from `at` on: `begin(n)`, `await put(data)`…; then `await finish()`.

    part: number of the part being spooled, which has `held` bytes so far; bytes: of those before it. skip: bytes of
    item `at` that are not to come again. over: all is acknowledged or in the spool. The journal has all this as `up`.
    """

    _file: "Any" = None
    _hash: "Any"

    def __init__(self, job: "Any", urls: "Any") -> None:
        """urls: one https URL for each part; None: parts go over MQTT."""
        self._job = job
        self._urls = urls
        # A URL names its object itself; over MQTT a second execution is not to mix with the first.
        self.name = job.id if urls or job.execution == 1 else "%s-%d" % (job.id, job.execution)
        self.path = job.agent.port.state_dir + "/upload"
        found: "Any" = job.data.get("up") or (0, 0, 0, 0, 0, [], False)
        self.part, self.bytes, self.at, self.skip, self.held, digests, self.over = found
        self._digests = list(digests)  # the journal's own may not change before it is written
        # Now: later the heap may have no such blocks.
        if urls:
            from edgeagent.https import put

            self._put = put
        else:
            self._piece = bytearray(_PIECE)
        self._done = self.skip  # bytes of item `at` that were put

    def _keep(self) -> None:
        up = self.part, self.bytes, self.at, self._done, self.held, list(self._digests), self.over
        self._job.checkpoint(up=up, restarts=0)  # of the runner, for lack of memory: there is progress

    async def resume(self) -> None:
        """Send the part that was ready to be sent when the device was reset, if there is one."""
        if self.held:
            await self._ship()

    def begin(self, at: int) -> None:
        """What is put from now on belongs to item `at`."""
        if at != self.at:
            self.at = at
            self.skip = 0
        self._done = 0

    async def put(self, data: bytes) -> None:
        """Add to the stream; sends whenever a part is full. Raises OSError of the flash, JobFailed."""
        skip = min(self.skip, len(data))
        self.skip -= skip
        self._done += skip
        view: "Any" = memoryview(data)[skip:]
        while view:
            if not self._file:
                self._file = self._open("wb")
                self._hash = hashlib.sha256()
            piece = view[: PART - self.held]
            self._file.write(piece)
            self._hash.update(piece)
            self.held += len(piece)
            self._done += len(piece)
            view = view[len(piece) :]
            if self.held == PART:
                await self._spooled()

    def _open(self, mode: str) -> "Any":
        return open(self.path, mode)

    async def _spooled(self) -> None:
        sync_file(self._file)
        self.close()
        # In the journal the digest of the spooled part is the last, not joined yet.
        self._digests.append(_hex(self._hash))
        self._keep()
        await self._ship()

    async def _ship(self) -> None:
        """Send the spooled part and note that it is acknowledged."""
        agent = self._job.agent
        if self._urls:
            await self._try(self._store)
        else:
            name = self.name
            if self.part:
                name += ".%d" % self.part
            count = (self.held + _PIECE - 1) // _PIECE
            with self._open("rb") as f:
                for number in range(count):
                    if MICROPYTHON:
                        gc.collect()  # what a message needs is 1 KB in one piece, and the heap is crowded
                    topic = topics.upload(agent.thing_name, name, number, count)
                    piece = memoryview(self._piece)[: f.readinto(self._piece)]
                    await self._try(agent.client.publish, topic, piece)
        number = self.part
        while number & 1:
            self._join()
            number >>= 1
        self.part += 1
        self.bytes += self.held
        self.held = 0
        self._keep()
        if not self.over:
            await self._job.progress(None, parts=self.part, bytes=self.bytes)

    def _join(self) -> None:
        right = self._digests.pop()
        self._digests.append(_hex(hashlib.sha256(binascii.unhexlify(self._digests.pop() + right))))

    async def finish(self) -> "dict[str, Any]":
        """Send what is left; {bundle, bytes, parts, sha256}: name, and root of the tree hash."""
        self.over = True
        if self._file:
            await self._spooled()
        while len(self._digests) > 1:
            self._join()
        return {"bundle": self.name, "bytes": self.bytes, "parts": self.part, "sha256": self._digests[0]}

    def close(self) -> None:
        """Close the spool; the file stays."""
        if self._file:
            self._file.close()
            self._file = None

    # --- one part

    async def _try(self, function: "Any", *arguments: "Any") -> None:
        """Call it while there is a link, until it succeeds. Raises JobFailed."""
        backoff = Backoff()
        left = _TRIES
        while True:
            await self._job.agent.connected.wait()
            try:
                return await function(*arguments)  # type: ignore[no-any-return]
            except TransportError as error:
                left -= 1
                if not left:
                    raise JobFailed("part %d: %s" % (self.part, error)) from None
            await asyncio.sleep(backoff.next())

    async def _store(self) -> None:
        if self.part >= len(self._urls):
            raise JobFailed("part %d: no URL" % self.part)
        with self._open("rb") as f:
            why = await self._put(self._job.agent, self._urls[self.part], f, self.held)
        if why:
            raise JobFailed("part %d: %s" % (self.part, why))
