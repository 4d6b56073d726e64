# SPDX-License-Identifier: Apache-2.0
"""A board that checks a signature still feeds its watchdog and its connection: what lies between two yields, counted.

Counted are bytecodes (as CPython has them), hashes and modular multiplications; the weights, microseconds at 240 MHz,
come from instruction counts on a Cortex-M3 (64 SHA-256 of one block: 130,000; a multiplication modulo 256 bits: 7,000;
modulo 3072 bits: 1.5 million) at 140 million instructions a second, and from a million simple bytecodes a second.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from edgeagent import p256
from edgeagent.ota import ecdsa, lms, rsa, verify
from tests.portable.ota_support import KEY, Artifact, envelope, sha, trust
from tests.portable.signers import HssKey, LmsKey, RsaKey

DIGEST = sha(b"message")
SLICE_US = 20_000


class Meter:
    """The largest figures between two yields."""

    def __init__(self) -> None:
        self.now = {"bytecodes": 0, "hashes": 0, "multiplications": 0}
        self.most = dict(self.now)
        self.yields = 0

    def add(self, what: str) -> None:
        self.now[what] += 1

    def end(self) -> None:
        self.yields += 1
        for what, count in self.now.items():
            self.most[what] = max(self.most[what], count)
            self.now[what] = 0

    def us(self, multiplication: float) -> float:
        """Upper bound of the longest slice in microseconds."""
        return self.most["bytecodes"] + 15 * self.most["hashes"] + multiplication * self.most["multiplications"]


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
def metered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
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

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        patch.setattr(lms, "hashlib", Hashes)
        patch.setattr(rsa, "int", Counted, raising=False)
        for module in (p256, ecdsa):
            patch.setattr(module, "P", Counted(p256.P))
        patch.setattr(ecdsa, "N", Counted(p256.N))
        sys.settrace(opcode)
        try:
            yield METER
        finally:
            sys.settrace(None)
            METER.end()


def run(monkeypatch: pytest.MonkeyPatch, work: Coroutine[Any, Any, Any]) -> tuple[Meter, Any]:
    """Drive a coroutine that only ever sleeps."""
    with metered(monkeypatch) as meter:
        try:
            while True:
                work.send(None)
        except StopIteration as end:
            return meter, end.value


def test_ecdsa(monkeypatch: pytest.MonkeyPatch) -> None:
    for digest in (DIGEST, b"\xff" * 32, bytes(32)):
        meter, good = run(monkeypatch, ecdsa.verify(KEY.public, digest, KEY.sign(digest)))
        assert good
        assert meter.most["multiplications"] <= 40
        assert meter.us(50) <= SLICE_US
    assert meter.yields > 128


def test_euclid_with_the_numbers_that_take_it_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = p256.N * 1000 * 10**60 // (1618 * 10**60 + 33988749894848204586834365638117720309179805762862135448622705)
    signature = (5).to_bytes(32, "big") + golden.to_bytes(32, "big")
    meter, good = run(monkeypatch, ecdsa.verify(KEY.public, DIGEST, signature))
    assert not good
    assert meter.us(50) <= SLICE_US


@pytest.mark.parametrize(("bits", "us"), [(2048, 4_500), (3072, 10_600), (4096, 18_800)])
def test_rsa(monkeypatch: pytest.MonkeyPatch, bits: int, us: float) -> None:
    key = RsaKey()
    public, signature = key.public, key.sign(DIGEST)
    if bits > 2048:  # as much work as a good one
        public, signature = b"\xff" * (bits // 8), b"\xfe" * (bits // 8)
    meter, good = run(monkeypatch, rsa.verify(public, DIGEST, signature))
    assert good == (bits == 2048)
    assert (meter.most["multiplications"], meter.yields) == (1, 17)
    assert meter.us(us) <= SLICE_US


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_lms(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    key = HssKey(LmsKey(b"1", width), LmsKey(b"2", 4))
    meter, good = run(monkeypatch, lms.verify(key.public, DIGEST, key.sign(DIGEST)))
    assert good
    assert meter.most["hashes"] <= 70
    assert meter.us(0) <= SLICE_US


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_lms_with_forged_chains(monkeypatch: pytest.MonkeyPatch, width: int, fill: int) -> None:
    key = LmsKey(b"1", width)
    signature = bytearray(key.sign(DIGEST))
    signature[12:44] = bytes([fill]) * 32
    meter, good = run(monkeypatch, lms.verify(key.public, DIGEST, bytes(signature)))
    assert not good
    assert meter.us(0) <= SLICE_US


def test_reading_the_largest_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = Artifact([(f"lib/module_{n:03}.mpy", b"x") for n in range(100)], boards=["B" * 64] * 6)
    assert 3500 < len(artifact.envelope) < 4096
    meter, _ = run(monkeypatch, verify.open_envelope(artifact.envelope, verify.Trust(trust())))
    assert meter.us(50) <= SLICE_US
    longest = Artifact([("/".join(["d" * 64] * 2) + f"/{n}{'e' * 60}", b"x") for n in range(15)])
    meter, _ = run(monkeypatch, verify.open_envelope(longest.envelope, verify.Trust(trust())))
    assert meter.us(50) <= SLICE_US


def test_the_meter_sees_a_verifier_that_does_not_yield(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the power that Fermat's inverse is, and all of a W8 signature, in one slice."""

    async def fermat(a: int, m: int) -> int:
        value = 1
        for _ in range(256):
            value = value * value % m
            value = value * a % m
        return pow(a, int(m) - 2, int(m))

    monkeypatch.setattr(ecdsa, "_inverse", fermat)
    meter, _ = run(monkeypatch, ecdsa.verify(KEY.public, DIGEST, KEY.sign(DIGEST)))
    assert meter.us(50) > SLICE_US


def test_an_envelope_of_three_algorithms_needs_all_three_verifiers() -> None:
    keys = (KEY, RsaKey(), LmsKey(width=8))
    text = Artifact([("a", b"x")]).manifest
    opened = asyncio.run(verify.open_envelope(envelope(text, keys), verify.Trust(trust(keys, 3))))
    assert opened[0].name == "app"
