# SPDX-License-Identifier: Apache-2.0
"""Over-the-air updates of the application. The format, the rules and every error code: docs/ota.md.

manifest.py  what an artifact is            verify.py + ecdsa.py rsa.py lms.py  who may publish it, and for what device
transfer.py  how blocks arrive              writer.py             how verified blocks reach the slot
slots.py     fill and activate a slot       trial.py              which one runs, trial, confirmation, rollback
delta.py     a patch instead of the payload
launch.py + safety.py  start the right slot and survive it        guard.py  no trial lasts for ever
Boards load each of them when it is needed and drop it again.
"""

import struct

MAX_PAYLOAD = 8388608  # bytes; its hash list is then 64 KiB, which only larger devices can hold


class Running:
    """What `trial.boot` chose in this process. slot: "a", "b", "" for none; None if it did not run here. artifact: the
    first 16 hex digits of the id of what is in it, if it came as an artifact.
    """

    slot: "str | None" = None
    artifact = ""


class Files:
    """[path, bytes, None, mode or None] of each file of a manifest; as lists they would take five times the heap."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._count = 0

    def append(self, name: str, size: int, mode: "int | None") -> None:
        self._data.extend(struct.pack("<IHB", size, 0xFFFF if mode is None else mode, len(name)) + name.encode())
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self):  # type: ignore[no-untyped-def]
        at = 0
        while at < len(self._data):
            size, mode, length = struct.unpack_from("<IHB", self._data, at)
            at += 7 + length
            yield [self._data[at - length : at].decode(), size, None, None if mode == 0xFFFF else mode]
