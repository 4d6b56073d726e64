# SPDX-License-Identifier: Apache-2.0
"""The payload of a slot that has an index: its files one after the other, as they were downloaded."""

import struct

from edgeagent.compat import Any


class Payload:
    """artifact: hex SHA-256 of its manifest. size: bytes."""

    def __init__(self, slot: str, artifact: str) -> None:
        """slot: path of the slot. Raises OSError."""
        self.artifact = artifact
        self.size = 0
        self._store = slot[:-1] + "store/"
        self._index = open(slot + ".idx", "rb")
        self._file: "Any" = None
        self._number = -1  # of the open file
        # Of each file where it ends in the payload and where its line begins: 8 bytes, for a board's heap.
        self._table = bytearray()
        at = self._index.seek(9)
        for line in self._index:
            self.size += int(line.split()[1])
            self._table.extend(struct.pack("<II", self.size, at))
            at += len(line)

    def readinto(self, at: int, view: memoryview) -> None:
        """Fill `view` from offset `at`. Raises ValueError beyond the end or for a file that is too short, OSError."""
        start = number = 0
        while view:
            if at >= self.size:
                raise ValueError("beyond the end")
            end, line = struct.unpack_from("<II", self._table, 8 * number)
            if at < end:
                if number != self._number:
                    if self._file:
                        self._file.close()
                    self._index.seek(line)
                    self._file = open(self._store + self._index.readline().split()[2].decode(), "rb")
                    self._number = number
                self._file.seek(at - start)
                count = self._file.readinto(view[: end - at])
                if not count:
                    raise ValueError("file too short")
                view = view[count:]
                at += count
            else:
                start = end
                number += 1

    def close(self) -> None:
        """It is not read any more."""
        for file in (self._index, self._file):
            if file:
                file.close()
