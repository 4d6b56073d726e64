# SPDX-License-Identifier: Apache-2.0
"""A durable, bounded, ordered queue of records: what is said while there is no link outlives power cuts.

Records are gathered in RAM and written as one frame with `flush` (or when `buffer` bytes are full), because on littlefs
every append copies the last block of a file. Measured there with records of 40 bytes and a buffer of 1 KB, per 1,000
records: 41 appends, that is 42 blocks of 4 KB erased and 86 KB programmed while there is no link, 2 and 8 KB to deliver
them; while the link keeps up, one write of the cursor (no erase, 256 bytes) and nothing else.

Files in the folder:
* `%016x`, a segment: frames, named by the sequence number of its first record. Frame: u64 number of its first record,
  u16 records, u16 bytes, u32 CRC-32 of all that and of the text; then the text: records with commas between. A segment
  is only appended to, and deleted as a whole. A tail that was torn is cut off at the last whole frame.
* `cursor`: the id of this numbering (random, made with the file), what is acknowledged, and the number below which all
  may have been sent; CRC-32. Numbers are never used for two records: a gap after a restart is normal.

What the power may take: records since the last flush. What may come twice: records whose acknowledgement was not seen
before the restart; they carry the same id and number. RAM: the buffer, one message, and some 40 segments at 4 numbers.
"""

import binascii
import os
import struct

from edgeagent import clock, log
from edgeagent.compat import Any, const, exc_text, exists, make_dirs, read_file, sync_dir, sync_file, write_atomic

_FRAME = const(">QHH")
_FRAME_BYTES = const(16)
_CURSOR = const(">QQQ4s")
_CURSOR_BYTES = const(32)
_AHEAD = const(1024)  # numbers that one write of the cursor sets apart
_SEGMENT_BYTES = const(4096)  # one block of littlefs
_SEGMENTS = const(32)
_NO_SPACE = const(28)  # ENOSPC, which MicroPython's errno may lack


def _crc(data: bytes, crc: int = 0) -> bytes:
    return struct.pack(">I", binascii.crc32(data, crc))


def _frame(f: Any) -> "tuple[int, int, bytes] | None":
    """(number of the first record, records, text) at the position of a file; None if there is no whole frame."""
    head = f.read(_FRAME_BYTES)
    if len(head) == _FRAME_BYTES:
        number, count, size = struct.unpack(_FRAME, head[:12])
        text = f.read(size)
        if count and len(text) == size and _crc(text, binascii.crc32(head[:12])) == head[12:]:
            return number, count, text
    return None


class Outbox:
    """Public to read: records, stored (bytes in files), buffered (bytes in RAM), dropped, damaged (segments), id."""

    def __init__(self, path: str, max_bytes: int, max_records: int, buffer: int, oldest: bool = True) -> None:
        """path: of the folder. oldest: what gives way when it is full, else new records are refused.

        Oldest records go by the segment: up to 1/32 of max_bytes (at least 4 KB) or 1/8 of max_records at once.
        """
        self.path = path
        self.buffer = buffer
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._oldest = oldest
        self.records = self.stored = self.buffered = self.dropped = self.damaged = 0
        self.segments: "list[list[int]]" = []  # [first number, end, records not acknowledged, bytes], oldest first
        self._frames: "list[Any]" = []  # in RAM: (number, records, text, ticks)
        self._text = bytearray()  # of the frame that grows
        self._count = self._since = 0
        self._whole = True  # the last segment ends with a whole frame
        self._broken = False
        self._at = self._first = self._after = 0  # in the first segment: what is acknowledged, and what was taken
        self.acked = self._reserved = 0
        key = os.urandom(4)
        raw = read_file(path + "/cursor", _CURSOR_BYTES)
        if raw and _crc(raw[:28]) == raw[28:]:
            self.acked, self._reserved, self.dropped, key = struct.unpack(_CURSOR, raw[:28])
        self.id = key.hex()
        self._next = 0
        if exists(path):
            names = sorted([name for name in os.listdir(path) if len(name) == 16])
            for file in names:
                self._scan(int(file, 16), file == names[-1])
            self._cut()
        self._next = max(self._next, self._reserved)

    def _name(self, number: int) -> str:
        return "%s/%016x" % (self.path, number)

    def _scan(self, first: int, last: bool) -> None:
        """Take over a segment of an earlier life."""
        path = self._name(first)
        size = count = at = 0
        end = self._next
        try:
            size = os.stat(path)[6]
            with open(path, "rb") as f:
                frame = _frame(f)
                while frame:
                    if frame[0] >= end:  # else written before, by an append that seemed to fail
                        end = frame[0] + frame[1]
                        if end > self.acked:
                            count += frame[1]
                    at += _FRAME_BYTES + len(frame[2])
                    frame = _frame(f)
        except OSError as error:
            log.error("outbox", "%s: %s", path, exc_text(error))
        self._next = end
        self.segments.append([first, end, count, at])
        self.stored += at
        self.records += count
        if at != size and not last:  # the last may have been torn by a power cut
            self.damaged += 1
        if count:
            self._whole = at == size
        else:
            self._delete(-1)

    def _cut(self) -> None:
        """Cut a torn tail off the last segment. Where that cannot be (littlefs tears nothing) a new one is begun."""
        if self.segments and not self._whole and hasattr(os, "truncate"):
            path = self._name(self.segments[-1][0])
            try:
                os.truncate(path, self.segments[-1][3])
                with open(path, "ab") as f:
                    sync_file(f)  # before there is a segment behind it
                self._whole = True
            except OSError:
                pass

    def _delete(self, index: int = 0) -> "list[int]":
        segment = self.segments.pop(index)
        self.stored -= segment[3]
        self._at = 0
        try:
            os.remove(self._name(segment[0]))
        except OSError:
            pass  # what is in it comes twice after a restart
        return segment

    def _drop(self) -> None:
        """Let the oldest records go: a segment, or a frame if there is none."""
        if self.segments:
            _, end, count, _ = self._delete()
        else:
            self._seal()
            number, count, text, _ = self._frames.pop(0)
            end = number + count
            self.buffered -= len(text)
        self.acked = max(self.acked, end)
        self.records -= count
        self.dropped += count

    def _seal(self) -> None:
        """The growing frame grows no more."""
        if self._count:
            self._frames.append((self._next - self._count, self._count, bytes(self._text), self._since))
            self._text = bytearray()
            self._count = 0

    def append(self, record: bytes) -> bool:
        """Add one record (JSON text); False if it was refused. Durable after the next flush."""
        size = len(record) + 1
        while (
            self.stored + self.buffered + size + _FRAME_BYTES * (len(self._frames) + 1) > self._max_bytes
            or self.records >= self._max_records
            or self.buffered >= self.buffer * 2  # the flash takes nothing
        ):
            if not self._oldest or not self.records or self.buffered >= self.buffer * 2:
                self.dropped += 1
                return False
            self._drop()
        if self._count:
            self._text.extend(b",")
        else:
            size -= 1
            self._since = clock.ticks()
        self._text.extend(record)
        self._count += 1
        self._next += 1
        self.records += 1
        self.buffered += size
        if self.buffered >= self.buffer and not self._broken:
            self.flush()
        return True

    def age(self) -> int:
        """Milliseconds since the oldest record in RAM was appended; -1 if there is none."""
        if self._frames:
            return clock.elapsed_ms(self._frames[0][3])
        return clock.elapsed_ms(self._since) if self._count else -1

    def flush(self) -> bool:
        """Make all records durable; False, and logged once, if the flash does not take them: they stay in RAM."""
        self._seal()
        frames = self._frames
        if not frames:
            return True
        size = self.buffered + _FRAME_BYTES * len(frames)
        segments = self.segments
        new = (
            not segments
            or not self._whole
            or segments[-1][3] + size > max(_SEGMENT_BYTES, self._max_bytes // _SEGMENTS)
            or segments[-1][2] * 8 >= self._max_records
        )
        segment = [frames[0][0], 0, 0, 0] if new else segments[-1]
        path = self._name(segment[0])
        self._whole = False
        try:
            if new:
                make_dirs(self.path)
            with open(path, "wb" if new else "ab") as f:
                for number, count, text, _ in frames:
                    head = struct.pack(_FRAME, number, count, len(text))
                    f.write(head + _crc(text, binascii.crc32(head)))
                    f.write(text)
                sync_file(f)
            if new:
                sync_dir(self.path)
        except OSError as error:
            if new:
                if exists(path):
                    os.remove(path)
            else:
                self._cut()
            if error.args[0] == _NO_SPACE and self._oldest and segments:
                self._drop()
                return self.flush()
            if not self._broken:
                log.error("outbox", "not stored: %s", exc_text(error))
            self._broken = True
            return False
        self._whole = True
        self._broken = False
        if new:
            segments.append(segment)
        for frame in frames:
            segment[2] += frame[1]
        segment[1] = self._next
        segment[3] += size
        self.stored += size
        self.buffered = 0
        frames.clear()
        return True

    def take(self, size: int) -> "tuple[int, int, bytes] | None":
        """The oldest records that are not acknowledged: (number of the first, records, text), or None.

        The text is of about `size` bytes (at least one frame); the numbers are consecutive. Without `ack` the next
        call gives the same records again, perhaps with more behind them.
        """
        found: "list[bytes]" = []
        first = end = total = after = 0
        while self.segments and not found:
            at = self._at
            try:
                with open(self._name(self.segments[0][0]), "rb") as f:
                    f.seek(at)
                    frame = _frame(f)
                    while frame and frame[0] < self.segments[0][1]:  # behind that: an append that seemed to fail
                        number, count, text = frame
                        at += _FRAME_BYTES + len(text)
                        if number >= self.acked:
                            if not found:
                                first = end = number
                            elif number != end or total + len(text) >= size:
                                break
                            found.append(text)
                            total += len(text) + 1
                            end = number + count
                            after = at
                        frame = _frame(f)
            except OSError as error:
                log.error("outbox", "%s", exc_text(error))
            if not found:
                self.damaged += 1
                self._drop()
        if not found:
            self._seal()
            if not self._frames:
                return None
            first, count, text, _ = self._frames[0]
            found = [text]
            end = first + count
        if end > self._reserved:
            self._reserved = end + _AHEAD
            if not self._save():
                self.id = os.urandom(4).hex()  # these numbers may come again after a restart
        self._first = first
        self._after = after
        return first, end - first, b",".join(found)

    def ack(self, end: int) -> None:
        """What was last taken has arrived; end: the number after its last record."""
        if end <= self.acked:
            return  # dropped meanwhile
        self.acked = end
        self.records -= end - self._first
        if self.segments:
            segment = self.segments[0]
            if segment[1] <= end:
                self._delete()
            else:
                segment[2] -= end - self._first
                self._at = self._after
                self._save()
        elif self._frames:
            self.buffered -= len(self._frames.pop(0)[2])

    def _save(self) -> bool:
        data = struct.pack(_CURSOR, self.acked, self._reserved, self.dropped, bytes.fromhex(self.id))
        try:
            make_dirs(self.path)
            write_atomic(self.path + "/cursor", data + _crc(data))
            return True
        except OSError:
            return False
