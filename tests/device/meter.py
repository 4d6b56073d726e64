# SPDX-License-Identifier: Apache-2.0
"""What a signature check costs a board: bytecodes (as CPython has them), hashes and modular multiplications, counted.

The weights, microseconds at 240 MHz, come from instruction counts on a Cortex-M3 (64 SHA-256 of one block: 130,000; a
multiplication modulo 256 bits: 7,000; modulo 3072 bits: 1.5 million) at 140 million instructions a second, and from a
million simple bytecodes a second.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import sys
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any
from unittest.mock import patch

from edgeagent import p256
from edgeagent.ota import ecdsa, lms, rsa

HASH_US = 15
MULTIPLICATION_US = {256: 50.0, 2048: 4_500.0, 3072: 10_600.0, 4096: 18_800.0}  # by the bits of the modulus


class Meter:
    """total: of all; most: the largest figures between two yields."""

    def __init__(self) -> None:
        self.now = {"bytecodes": 0, "hashes": 0, "multiplications": 0}
        self.most = dict(self.now)
        self.total = dict(self.now)
        self.yields = 0

    def add(self, what: str) -> None:
        self.now[what] += 1

    def end(self) -> None:
        self.yields += 1
        for what, count in self.now.items():
            self.most[what] = max(self.most[what], count)
            self.total[what] += count
            self.now[what] = 0

    def us(self, bits: int = 256, whole: bool = False) -> float:
        """Upper bound of the longest slice, or of all, in microseconds. bits: of the modulus."""
        counts = self.total if whole else self.most
        return counts["bytecodes"] + HASH_US * counts["hashes"] + MULTIPLICATION_US[bits] * counts["multiplications"]


METER = Meter()


class Counted(int):
    """A modulus: reductions by it are counted, by themselves or through the numbers it takes part in."""

    def __rmod__(self, value: int) -> int:
        METER.add("multiplications")
        return int(value) % int(self)

    def __mod__(self, value: int) -> int:
        METER.add("multiplications")
        return Counted(int(self) % int(value))

    def __mul__(self, value: int) -> int:
        return Counted(int(self) * int(value))

    @classmethod
    def from_bytes(cls, data: Any, order: Any = "big", *, signed: bool = False) -> Counted:
        return cls(builtins.int.from_bytes(data, order))


@contextmanager
def metered() -> Iterator[Meter]:
    global METER
    METER = Meter()

    async def sleep(seconds: float) -> None:
        METER.end()

    def opcode(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            METER.add("bytecodes")
        frame.f_trace_opcodes = "edgeagent" in frame.f_code.co_filename
        return opcode

    def counted_hash(data: Any = b"") -> Any:
        METER.add("hashes")
        return hashlib.sha256(data)

    class Hashes:
        sha256 = staticmethod(counted_hash)

    with ExitStack() as stack:
        for place, name, value in (
            (asyncio, "sleep", sleep),
            (lms, "hashlib", Hashes),
            (p256, "P", Counted(p256.P)),
            (ecdsa, "P", Counted(p256.P)),
            (ecdsa, "N", Counted(p256.N)),
        ):
            stack.enter_context(patch.object(place, name, value))
        stack.enter_context(patch.object(rsa, "int", Counted, create=True))
        sys.settrace(opcode)
        try:
            yield METER
        finally:
            sys.settrace(None)
            METER.end()


def run(work: Coroutine[Any, Any, Any]) -> tuple[Meter, Any]:
    """Drive a coroutine that only ever sleeps: (what it took, its result)."""
    with metered() as meter:
        try:
            while True:
                work.send(None)
        except StopIteration as end:
            return meter, end.value
