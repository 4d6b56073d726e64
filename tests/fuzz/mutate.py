# SPDX-License-Identifier: Apache-2.0
"""A small mutational fuzzer: inputs grow from a corpus of valid ones, and one number replays a failure."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

MAX_BYTES = 4096
_BYTES = (0, 1, 2, 0x20, 0x22, 0x2F, 0x5B, 0x7B, 0x7F, 0x80, 0xFE, 0xFF)  # ends of ranges; marks of JSON and topics
Target = Callable[[bytes], object]


class Failure(Exception):
    """A target raised what it must not; the text replays it."""


def mutated(draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One input: one to four of the corpus in a row, with up to eight changes."""
    data = bytearray(b"".join(draw.choice(corpus) for _ in range(draw.randint(1, 4))))
    for _ in range(draw.choice((0, 1, 1, 2, 3, 8))):
        at = draw.randint(0, len(data))
        kind = draw.randrange(7)
        if kind == 0:
            data[at : at + 1] = bytes((draw.choice(_BYTES),))
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del data[at : at + draw.randint(1, 16)]
        elif kind == 3:
            data[at:at] = draw.randbytes(draw.randint(1, 16))
        elif kind == 4:
            data[at:at] = data[at : at + draw.randint(1, 64)]
        elif kind == 5:
            data[at:at] = draw.choice(corpus)
        else:
            data[at:at] = bytes((draw.choice(_BYTES),)) * draw.randint(1, 300)
    return bytes(data[:MAX_BYTES])


def run(name: str, target: Target, corpus: Sequence[bytes], seed: int, inputs: int = 0, seconds: float = 0) -> int:
    """Feed `target` so many inputs, or for so long; how many it were. Raises Failure at the first that fails."""
    end = time.monotonic() + seconds
    count = 0
    while count < inputs or time.monotonic() < end:
        data = mutated(random.Random(f"{name}:{seed}:{count}"), corpus)
        try:
            target(data)
        except Exception as error:
            replay = f"python -m tests.fuzz.mqtt --only {name} --replay {data.hex()}"
            raise Failure(f"{name}, seed {seed}, input {count}: {error!r}\n{replay}") from error
        count += 1
    return count
