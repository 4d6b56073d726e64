# SPDX-License-Identifier: Apache-2.0
"""Runs on MicroPython: `delta_program.py OLD NEW PATCH ROUNDS`. Applies a patch so often; prints JSON: ns a byte, heap,
the longest time between two yields in ms.
"""

import gc
import json
import sys
import time

from edgeagent.ota import delta

BLOCK = 4096


class Old:
    def __init__(self, path):
        self._file = open(path, "rb")
        self.size = self._file.seek(0, 2)

    def readinto(self, at, view):
        self._file.seek(at)
        self._file.readinto(view)


class New:
    """Compares what is written."""

    def __init__(self, path):
        self._file = open(path, "rb")
        self.size = self._file.seek(0, 2)
        self.have = bytearray(self.size // BLOCK // 8 + 1)

    def block(self, number, data):
        self._file.seek(number * BLOCK)
        assert self._file.read(len(data)) == data


def main(old, new, patch, rounds):
    base = Old(old)
    with open(patch, "rb") as file:
        ids = file.read(37)[5:]
        held = bytearray(BLOCK)
        best = longest = heap = 0
        for n in range(rounds):
            made = New(new)
            gc.collect()
            before = gc.mem_alloc()
            start = last = time.ticks_us()
            slowest = steps = 0
            for _ in delta.apply(file, ids, base, made.size, made, held):
                now = time.ticks_us()
                slowest = max(slowest, time.ticks_diff(now, last))
                steps += 1
                if steps == 3 and not n:
                    gc.collect()
                    heap = gc.mem_alloc() - before
                last = time.ticks_us()
            spent = time.ticks_diff(time.ticks_us(), start) * 1000 / made.size
            best = min(best, spent) if n else spent
            longest = min(longest, slowest) if n else slowest
    print(json.dumps({"ns_a_byte": round(best), "heap_bytes": heap, "slice_ms": round(longest / 1000, 2)}))


main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
