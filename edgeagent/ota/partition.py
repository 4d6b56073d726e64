# SPDX-License-Identifier: Apache-2.0
"""Firmware of an ESP32: fill the app partition that does not run, boot it on trial, keep it or go back.

The state is trial.py's; its "active" is the label of the partition on trial, its "artifacts" are the ids, by label, of
what that holds and of what ran when it was activated, or None, and "levels" their security versions. The latter image
is still there, in the partition "before", as long as that has the SHA-256 "kept". What the bootloader will do is in
otadata: two records (seq, label, state, CRC of seq), one a sector, of which the highest good seq names the partition.
Facts of ESP-IDF (esp_ota_ops.c, bootloader_utility.c) that this is built around:
    a new image gets one boot: any reset before it is marked valid makes its record ABORTED, and the older one counts
    marking valid erases and rewrites the one sector: a cut in between loses the record, and the older one counts
    it marks what otadata selects, which is not what runs if the bootloader could not load that
    set_boot on an image that runs makes it NEW again, so going back by it would need a confirmation of its own
    writing to a partition is not refused, whatever state the running one is in
So it is never guessed what happened: the running partition and the records are read.
"""

import asyncio
import binascii
import hashlib
import struct

from edgeagent.compat import Any, const, make_dirs
from edgeagent.errors import UpdateError
from edgeagent.ota import trial

_BLOCK = const(4096)
_OTA = const(16)  # bit in the subtype of ota_0, ota_1, …
_NEW = const(0)  # states of a record
_PENDING = const(1)
_VALID = const(2)
_INVALID = const(3)
_ABORTED = const(4)
_ERASED = const(0xFFFFFFFF)


class Firmware:
    """Target and writer at once. root: folder of the state. port: as kinds.target has it.

    Raises UpdateError "partition" if the device's table has not two partitions to change between.
    """

    def __init__(self, root: str, port: "Any" = None) -> None:
        from esp32 import Partition as esp

        self.root = root
        self.port = port
        self.esp = esp
        self.running = esp(esp.RUNNING)
        self.own = self.running.info()[4]
        try:
            self.otadata = esp.find(1, 0)[0]
            self.turn(self.running.get_next_update())
        except (IndexError, OSError):
            self.next = self.own
        if self.next == self.own:
            raise UpdateError("partition", "no OTA table")

    def records(self) -> "list[tuple[bool, int, int, str, int]]":
        """(good, seq, -sector, label, state) of each intact record; the last one counts, if it is good."""
        found = []
        raw = bytearray(32)
        slots = sorted([one.info()[1:5] for one in self.esp.find() if one.info()[1] & _OTA])
        for sector in (0, 1):
            self.otadata.readblocks(sector, raw)
            seq, _, state, crc = struct.unpack("<I20sII", raw)
            if seq != _ERASED and crc == binascii.crc32(raw[:4], _ERASED):
                found.append((state not in (_INVALID, _ABORTED), seq, -sector, slots[(seq - 1) % len(slots)][3], state))
        return sorted(found)

    def selected(self) -> "tuple[Any, ...]":
        """(-sector, label, state) of the record that counts; (0, "", 0) without one."""
        records = self.records()
        return records[-1][2:] if records and records[-1][0] else (0, "", 0)

    def prepare(self, artifact: str) -> str:
        """The label of the partition to fill.

        Raises UpdateError "busy" while what runs is not confirmed and there is a way back from it, which is that one.
        """
        now = self.selected()[1:]
        pending = now == (self.own, _PENDING)
        back = self.esp.find(0, 0) or len([1 for record in self.records() if record[0]]) > 1
        if (pending and back) or trial.status(self.root)["state"] == "trial":
            raise UpdateError("busy", self.own)
        # What is to be filled must not be booted before it is activated: it would run without a trial.
        self.stay()
        if pending:
            self.mark()
        make_dirs(self.root)
        return self.next  # type: ignore[no-any-return]

    def complete(self, artifact: str, version: str, security_version: int) -> None:
        """Every byte was read back. Nothing is stored: after a cut it is found out again."""
        self.new = artifact
        self.floor = security_version

    async def activate(self, version: str, job_id: str, deadline_s: int, previous: "str | None" = None) -> None:
        """As Slots.activate, but a coroutine. boots is 1 from the start: whether it was booted is known by what runs.

        The record of the trial comes before otadata, so no boot of the new image is without one.
        Raises UpdateError "partition" if otadata is not as it has to be afterwards; it is undone then.
        """
        kept = await self.digest(self.running)
        document = trial.status(self.root)
        document.update(
            artifacts={self.own: document.get("artifacts", {}).get(self.own), self.next: self.new},
            levels={self.own: document.get("levels", {}).get(self.own, 0), self.next: self.floor},
            before=self.own,
            kept=kept,
            active=self.next,
            state="trial",
            version=version,
            previous_version=previous,
            job=job_id,
            reason=None,
            boots=1,
            causes=[],
            deadline_s=deadline_s,
            security_version=self.floor,
        )
        trial.save(self.root, document)
        if not self.select():
            raise UpdateError("partition", trial.status(self.root)["reason"])

    async def kept(self) -> "tuple[str, int]":
        """As Slots.kept; `activate` is then for that image, wherever it is.

        Its bytes are the proof: an update that has begun since, or was left before its activation, has changed them.
        Raises UpdateError "busy" as `prepare`.
        """
        status = trial.status(self.root)
        if status["state"] == "rolled_back":
            raise UpdateError("rolled-back", status["version"])
        before = status.get("before", "")
        found = self.esp.find(0, 255, before)
        # An image of the factory, in a partition of its own, cannot be tried: no record of otadata is for that.
        if (
            status["active"] != self.own
            or not found
            or not found[0].info()[1] & _OTA
            or await self.digest(found[0]) != status["kept"]
        ):
            raise UpdateError("slot", "nothing is kept")
        self.prepare("")
        self.turn(found[0])
        self.complete(status["artifacts"].get(before), "", status["levels"].get(before, 0))
        return self.version(None, self.other), self.floor

    async def digest(self, partition: "Any") -> str:
        """Hex SHA-256 of a partition, to its end. Yields per block: it is seconds for megabytes. Raises OSError."""
        view = bytearray(512)
        whole = hashlib.sha256()
        for at in range(0, partition.info()[3], 512):
            partition.readblocks(0, view, at)
            whole.update(view)
            if not at % _BLOCK:
                await asyncio.sleep(0)
        return whole.digest().hex()

    def turn(self, partition: "Any") -> None:
        """Make it the other one."""
        self.other = partition
        self.next = partition.info()[4]

    def stay(self) -> None:
        """Boot what runs, should otadata say otherwise."""
        if self.selected()[1] != self.own:
            self.running.set_boot()
            self.mark()

    def select(self) -> bool:
        """Boot the other partition next, and see that it is so; else the trial is over, and what runs is booted."""
        problem: "Any" = "otadata"
        try:
            self.other.set_boot()
            if self.selected()[1:] == (self.next, _NEW):
                return True
        except OSError as error:
            problem = error
        trial.failed(self.root, "set_boot: %s" % problem)
        try:
            self.stay()
        except OSError:
            pass  # the reason is known
        return False

    def runs(self, status: "dict[str, Any]") -> bool:
        """True if the partition on trial runs. If not, the trial was interrupted: try again, MAX_BOOTS times in all,
        which restarts the device; then the trial is over.
        """
        runs = bool(self.own == status["active"])
        cause = "boot record lost"
        for record in self.records():
            if record[3] == status["active"]:
                if runs and record[4] == _PENDING:
                    return True
                cause = "rolled back by the bootloader" if record[4] == _ABORTED else "state %d" % record[4]
        causes = status["causes"]
        causes.append("%s (%s)" % (cause, self.port.reset_cause()))
        status["boots"] += 1
        if status["boots"] > trial.MAX_BOOTS:
            trial.failed(self.root, "interrupted: " + ", ".join(causes))
            restart = runs
        else:
            trial.save(self.root, status)
            if runs:
                return True  # not watched: it was marked, or the bootloader does not do it
            self.turn(self.esp.find(0, 255, status["active"])[0])  # of three it may not be the next one
            restart = self.select()
        if restart:
            self.port.reset()
        return False

    def mark(self) -> "Any":
        """Mark what otadata selects as valid; what went wrong."""
        try:
            self.esp.mark_app_valid_cancel_rollback()
        except OSError as error:  # -261: a build without rollback has no mark
            return error

    def confirm(self) -> None:
        """Raises UpdateError "partition" if the bootloader would not keep what runs; guard.py ends the trial then."""
        problem = self.mark()
        if self.selected()[1:] != (self.own, _VALID):
            raise UpdateError("partition", "not marked valid: %s" % problem)
        trial.confirm(self.root)

    def drop(self, label: str) -> None:
        """The image at `label` is not to be booted again: erase its record, if that is the one that counts.

        The bootloader drops one by itself only while it watches it. Raises OSError.
        """
        now = self.selected()
        if now[1] == label:
            self.otadata.ioctl(6, -now[0])

    def version(self, agent: "Any", partition: "Any" = None) -> str:
        """Of the app descriptor of the image that runs, or of the one in `partition`."""
        return self.head(partition or self.running)[48:].split(b"\0")[0].decode()

    def head(self, partition: "Any") -> bytes:
        """Its first 80 bytes: image header, header of the first segment, app descriptor up to the version."""
        head = bytearray(80)
        partition.readblocks(0, head)
        return bytes(head)

    def free(self) -> int:
        """Bytes of the partition to fill."""
        return self.other.info()[3]  # type: ignore[no-any-return]

    def old(self) -> "Any":
        """What runs, as a payload.Payload with the `size` of its partition; None if no update brought it.

        By its partition, so it is right after a confirmation, a rollback, and a trial that was lost.
        """
        self.artifact = trial.status(self.root).get("artifacts", {}).get(self.own)
        self.size = self.running.info()[3]
        return self if self.artifact else None

    def readinto(self, at: int, view: "Any") -> None:
        """Raises OSError beyond the end."""
        self.running.readblocks(0, view, at)

    # --- as writer.Writer, of the other partition

    def writer(self, place: str, manifest: "Any", hashes: "Any") -> "Any":
        """hashes: open file of 32 bytes for each block, then for the image. Raises UpdateError "bundle" if they are not
        the signed ones, "space".
        """
        room = self.free()
        if manifest.size > room or len(manifest.files) > 1:
            raise UpdateError("space", "%d bytes for one file" % room)
        whole = hashlib.sha256()
        for _ in range(manifest.blocks + 1):
            whole.update(hashes.read(32))
        if hashes.read(1) or whole.digest() != manifest.blocks_sha256:
            raise UpdateError("bundle", "hash list")
        self.manifest = manifest
        self.hashes = hashes
        self.good = False  # the header of the image
        self.have = bytearray((manifest.blocks + 7) // 8)
        return self

    def matches(self, digest: "Any", number: int) -> bool:
        self.hashes.seek(32 * number)
        return digest.digest() == self.hashes.read(32)  # type: ignore[no-any-return]

    def check(self, head: "Any") -> None:
        """head: the beginning of the image. Raises UpdateError "image" if it is not one that this chip can start: a
        bootloader or an image with one in front has no app descriptor there.
        """
        own = self.head(self.running)
        for at in (0, 12, 13, 32, 33, 34, 35):
            if head[at] != own[at]:
                raise UpdateError("image", "not an app image for chip %d" % own[12])
        self.good = True

    async def resume(self) -> None:
        """`have`: what is on flash already. Raises UpdateError "image". Yields per block."""
        await self.scan(False)
        if self.have[0] & 1:
            self.check(self.head(self.other))

    async def scan(self, strict: bool, also: "Any" = None) -> None:
        view = memoryview(bytearray(512))
        whole = hashlib.sha256()
        rest = self.manifest.size
        for number in range(self.manifest.blocks):
            block = hashlib.sha256()
            for at in range(0, min(rest, _BLOCK), 512):
                part = view[:rest]
                self.other.readblocks(number, part, at)
                block.update(part)
                whole.update(part)
                if also:
                    also.update(part)
                rest -= len(part)
            if self.matches(block, number):
                self.have[number >> 3] |= 1 << (number & 7)
            await asyncio.sleep(0)
        if strict and whole.digest() != self.manifest.sha256:
            raise UpdateError("file-hash", "firmware")

    def block(self, number: int, data: "Any") -> "Any":
        """As Writer.block. True: to come again, since nothing is erased before the header in block 0 was seen.

        Raises UpdateError "image".
        """
        if not self.matches(hashlib.sha256(data), number):
            raise UpdateError("block-hash", "block %d" % number)
        if not number:
            self.check(data)
        elif not self.good:
            return True
        self.other.ioctl(6, number)
        return self.other.writeblocks(number, data, 0)

    def close(self) -> None:
        """There is no file."""

    async def finish(self, whole: "Any" = None) -> None:
        """Read back the whole image. whole: hash object that takes it in, too. Raises UpdateError "file-hash"."""
        await self.scan(True, whole)
