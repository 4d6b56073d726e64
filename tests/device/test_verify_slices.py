# SPDX-License-Identifier: Apache-2.0
"""A board that checks a signature still feeds its watchdog and its connection: what is between two yields, counted."""

from __future__ import annotations

import asyncio

import pytest

from edgeagent import p256
from edgeagent.ota import ecdsa, lms, rsa, verify
from tests.device.meter import run
from tests.portable.ota_support import KEY, Artifact, envelope, sha, trust
from tests.portable.signers import HssKey, LmsKey, RsaKey

DIGEST = sha(b"message")
SLICE_US = 20_000


def test_ecdsa() -> None:
    for digest in (DIGEST, b"\xff" * 32, bytes(32)):
        meter, good = run(ecdsa.verify(KEY.public, digest, KEY.sign(digest)))
        assert good
        assert meter.most["multiplications"] <= 40
        assert meter.us() <= SLICE_US
    assert meter.yields > 128


def test_euclid_with_the_numbers_that_take_it_longest() -> None:
    golden = p256.N * 1000 * 10**60 // (1618 * 10**60 + 33988749894848204586834365638117720309179805762862135448622705)
    signature = (5).to_bytes(32, "big") + golden.to_bytes(32, "big")
    meter, good = run(ecdsa.verify(KEY.public, DIGEST, signature))
    assert not good
    assert meter.us() <= SLICE_US


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa(bits: int) -> None:
    key = RsaKey()
    public, signature = key.public, key.sign(DIGEST)
    if bits > 2048:  # as much work as a good one
        public, signature = b"\xff" * (bits // 8), b"\xfe" * (bits // 8)
    meter, good = run(rsa.verify(public, DIGEST, signature))
    assert good == (bits == 2048)
    assert (meter.most["multiplications"], meter.yields) == (1, 17)
    assert meter.us(bits) <= SLICE_US


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_lms(width: int) -> None:
    key = HssKey(LmsKey(b"1", width), LmsKey(b"2", 4))
    meter, good = run(lms.verify(key.public, DIGEST, key.sign(DIGEST)))
    assert good
    assert meter.most["hashes"] <= 70
    assert meter.us() <= SLICE_US


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_lms_with_forged_chains(width: int, fill: int) -> None:
    key = LmsKey(b"1", width)
    signature = bytearray(key.sign(DIGEST))
    signature[12:44] = bytes([fill]) * 32
    meter, good = run(lms.verify(key.public, DIGEST, bytes(signature)))
    assert not good
    assert meter.us() <= SLICE_US


def test_reading_the_largest_manifest() -> None:
    artifact = Artifact([(f"lib/module_{n:03}.mpy", b"x") for n in range(100)], boards=["B" * 64] * 6)
    assert 3500 < len(artifact.envelope) < 4096
    meter, _ = run(verify.open_envelope(artifact.envelope, verify.Trust(trust())))
    assert meter.us() <= SLICE_US
    longest = Artifact([("/".join(["d" * 64] * 2) + f"/{n}{'e' * 60}", b"x") for n in range(15)])
    meter, _ = run(verify.open_envelope(longest.envelope, verify.Trust(trust())))
    assert meter.us() <= SLICE_US


def test_the_meter_sees_a_verifier_that_does_not_yield(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the power that Fermat's inverse is, and all of a W8 signature, in one slice."""

    async def fermat(a: int, m: int) -> int:
        value = 1
        for _ in range(256):
            value = value * value % m
            value = value * a % m
        return pow(a, int(m) - 2, int(m))

    monkeypatch.setattr(ecdsa, "_inverse", fermat)
    meter, _ = run(ecdsa.verify(KEY.public, DIGEST, KEY.sign(DIGEST)))
    assert meter.us() > SLICE_US


def test_an_envelope_of_three_algorithms_needs_all_three_verifiers() -> None:
    keys = (KEY, RsaKey(), LmsKey(width=8))
    text = Artifact([("a", b"x")]).manifest
    opened = asyncio.run(verify.open_envelope(envelope(text, keys), verify.Trust(trust(keys, 3))))
    assert opened[0].name == "app"
