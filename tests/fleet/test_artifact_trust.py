# SPDX-License-Identifier: Apache-2.0
"""Signing keys of every kind against the device's verifiers and independent ones; rotations; the ledger of LMS keys."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhsslms import pyhsslms

from edgeagent.errors import UpdateError
from edgeagent.jobs import afr_ota
from edgeagent.ota import ecdsa, lms, verify
from edgeagent.ota import rsa as device_rsa
from edgefleet.artifacts import lms_key, rotation, sign
from edgefleet.artifacts import verify as second
from edgefleet.artifacts.build import Artifact, build
from edgefleet.cli import main
from edgefleet.errors import InputError
from tests.portable.ota_support import sha
from tests.portable.signers import HssKey, LmsKey, RsaKey

KINDS = ("ecdsa-p256", "rsa-2048", "rsa-3072", "rsa-4096", "lms-h5")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    for kind in KINDS:
        sign.generate_key(folder / kind, kind)
    return {kind: folder / kind for kind in KINDS}


def made(folder: Path, **options: Any) -> Artifact:
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "app.py").write_text("x = 1\n")
    given: dict[str, Any] = {"name": "app", "version": "2.0.0", "boards": ["B"], "runtime": "cpython", **options}
    return build(folder / "src", **given)


def opened(artifact: Artifact, trust: dict[str, Any]) -> str:
    return asyncio.run(verify.open_envelope(artifact.envelope, verify.Trust(trust)))[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_of_each_kind_satisfies_both_verifiers(keys: dict[str, Path], tmp_path: Path, kind: str) -> None:
    artifact = sign.sign(made(tmp_path), keys[kind])
    trust = sign.trust_document([keys[kind]])
    assert opened(artifact, trust) == artifact.digest
    assert second.both(artifact, trust) == [trust["keys"][0]["id"]]
    signer, algorithm, signature = artifact.signatures[0]
    artifact.signatures = [(signer, algorithm, signature[:-1] + bytes([signature[-1] ^ 1]))]
    assert [one.state for one in second.signatures(artifact.envelope, trust)] == ["invalid"]
    with pytest.raises(InputError, match="signature: 0 valid, 1 needed"):
        second.both(artifact, trust)


def test_a_quorum_of_three_algorithms(keys: dict[str, Path], tmp_path: Path) -> None:
    three = [keys["ecdsa-p256"], keys["rsa-2048"], keys["lms-h5"]]
    trust = sign.trust_document(three, threshold=3)
    artifact = made(tmp_path)
    for number, path in enumerate(three):
        with pytest.raises(UpdateError, match=f"{number} valid, 3 needed"):
            opened(artifact, trust)
        sign.sign(artifact, path)
    assert opened(artifact, trust)
    assert len(second.both(artifact, trust)) == 3
    assert len(artifact.envelope) < 4096


def test_the_public_half_is_enough_for_a_trust_file(keys: dict[str, Path], tmp_path: Path) -> None:
    for kind in ("ecdsa-p256", "rsa-3072"):
        half = serialization.load_pem_private_key(keys[kind].read_bytes(), None).public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        (tmp_path / kind).write_bytes(half.public_bytes(serialization.Encoding.PEM, form))
        assert sign.trust_document([tmp_path / kind]) == sign.trust_document([keys[kind]])
    assert sign.trust_document([Path(f"{keys['lms-h5']}.pub")]) == sign.trust_document([keys["lms-h5"]])


def test_keys_that_devices_cannot_use_are_refused(tmp_path: Path) -> None:
    plain = serialization.NoEncryption()
    for number, key in enumerate(
        (
            rsa.generate_private_key(3, 2048),
            rsa.generate_private_key(65537, 1024),
            ec.generate_private_key(ec.SECP384R1()),
        )
    ):
        path = tmp_path / str(number)
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        with pytest.raises(InputError, match="is not a P-256 key"):
            sign.load_public(path)
    for kind in ("rsa-1024", "lms-h25", "ed25519"):
        with pytest.raises(InputError, match="must be one of"):
            sign.generate_key(tmp_path / "new", kind)


# The device's verifiers against cryptography and pyhsslms, on whatever hypothesis comes up with.


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 63), st.integers(0, 255))
def test_ecdsa_agrees_with_cryptography(message: bytes, at: int, flip: int) -> None:
    key = ec.derive_private_key(1 + len(message) * 12345, ec.SECP256R1())
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    public = sign.point(key.public_key())
    signature = bytearray(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    signature[at] ^= flip
    expected = second._judge(1, public, sha(message), bytes(signature)) == "valid"
    assert asyncio.run(ecdsa.verify(public, sha(message), bytes(signature))) == expected == (flip == 0)


@given(st.integers(1, 2**255), st.integers(1, 2**255))
def test_der_of_aws_code_signing_is_read_as_cryptography_writes_it(r: int, s: int) -> None:
    text = base64.b64encode(encode_dss_signature(r, s)).decode()
    assert afr_ota._signature(text) == r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_a_high_s_is_a_signature_too_as_the_standard_has_it() -> None:
    """Nothing is identified by its signature here, so that there are two forms of one is no weakness."""
    key = ec.derive_private_key(77, ec.SECP256R1())
    r, s = decode_dss_signature(key.sign(b"m", ec.ECDSA(hashes.SHA256())))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for value in (s, order - s):
        signature = r.to_bytes(32, "big") + value.to_bytes(32, "big")
        assert asyncio.run(ecdsa.verify(sign.point(key.public_key()), sha(b"m"), signature))
    for value in (s + order, 2 * order - s):
        if value < 1 << 256:
            signature = r.to_bytes(32, "big") + value.to_bytes(32, "big")
            assert not asyncio.run(ecdsa.verify(sign.point(key.public_key()), sha(b"m"), signature))


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 255), st.integers(0, 255))
def test_rsa_agrees_with_cryptography(message: bytes, at: int, flip: int) -> None:
    key = RsaKey()
    signature = bytearray(key.sign(sha(message)))
    signature[at] ^= flip
    expected = second._judge(2, key.public, sha(message), bytes(signature)) == "valid"
    assert asyncio.run(device_rsa.verify(key.public, sha(message), bytes(signature))) == expected == (flip == 0)


def test_rsa_verifies_what_openssl_signs(keys: dict[str, Path]) -> None:
    for kind in ("rsa-2048", "rsa-3072", "rsa-4096"):
        key = serialization.load_pem_private_key(keys[kind].read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        public = sign.load_public(keys[kind])[1]
        signature = key.sign(b"firmware", padding.PKCS1v15(), hashes.SHA256())
        assert asyncio.run(device_rsa.verify(public, sha(b"firmware"), signature))
        pss = key.sign(b"firmware", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        assert not asyncio.run(device_rsa.verify(public, sha(b"firmware"), pss))
        other = key.sign(b"firmware", padding.PKCS1v15(), hashes.SHA384())
        assert not asyncio.run(device_rsa.verify(public, sha(b"firmware"), other))


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_lms_agrees_with_pyhsslms(levels: int, width: int) -> None:
    kind = {1: 1, 2: 2, 4: 3, 8: 4}[width].to_bytes(4, "big")
    key = pyhsslms.HssPrivateKey(levels=levels, lms_type=pyhsslms.lms_sha256_m32_h5, lmots_type=kind)
    public = key.publicKey().serialize()
    signature = key.sign(b"message")
    assert asyncio.run(lms.verify(public, b"message", signature))
    assert not asyncio.run(lms.verify(public, b"massage", signature))
    for at in range(0, len(signature), len(signature) // 40):
        bad = signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
        assert not asyncio.run(lms.verify(public, b"message", bad))
        assert second._judge(3, public, b"message", bad) == "invalid"


def test_pyhsslms_accepts_what_the_tests_own_signer_makes() -> None:
    """So the portable tests do not check our reading of the RFC against itself."""
    for key in (LmsKey(width=4), LmsKey(width=8), HssKey(LmsKey(b"1"), LmsKey(b"2", 2))):
        assert second._judge(3, key.public, b"message", key.sign(b"message")) == "valid"


# The ledger.


@pytest.fixture
def one(tmp_path: Path) -> Path:
    path = tmp_path / "lms"
    sign.generate_key(path, "lms-h5")
    return path


def ledger_of(path: Path) -> Path:
    return Path(f"{path}.ledger")


def leaf(signature: bytes) -> int:
    return int.from_bytes(signature[4:8], "big")


def test_every_signature_has_a_leaf_of_its_own(one: Path) -> None:
    leaves = [leaf(lms_key.LmsKey(one).sign(b"same")) for _ in range(3)]
    assert leaves == [0, 1, 2]
    lines = ledger_of(one).read_bytes().splitlines()
    assert [line.split()[0] for line in lines[1:]] == [b"0", b"1", b"2"]


def test_the_leaf_is_on_the_disk_before_the_signature_is_made(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    real_sync = os.fsync

    def fsync(descriptor: int) -> None:
        events.append(("fsync", len(ledger_of(one).read_bytes().splitlines())))
        real_sync(descriptor)

    def make(*args: Any, **options: Any) -> Any:
        events.append(("sign", 0))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(pyhsslms, "LmsPrivateKey", make)
    with pytest.raises(KeyboardInterrupt):
        lms_key.LmsKey(one).sign(b"m")
    assert events[0] == ("fsync", 2)
    assert events[-1] == ("sign", 0)
    monkeypatch.undo()
    assert leaf(lms_key.LmsKey(one).sign(b"m")) == 1


def test_a_key_is_used_up_after_its_last_leaf(one: Path) -> None:
    header = ledger_of(one).read_bytes()
    ledger_of(one).write_bytes(header + b"".join(b"%d x\n" % n for n in range(31)))
    assert leaf(lms_key.LmsKey(one).sign(b"m")) == 31
    with pytest.raises(InputError, match="all 32 signatures are used"):
        lms_key.LmsKey(one).sign(b"m")


@pytest.mark.parametrize("tail", [b"2", b"2 ", b"2 abc", b"\x00\x00\x00"])
def test_a_line_that_was_cut_short_counts_as_used(one: Path, tail: bytes) -> None:
    ledger_of(one).write_bytes(ledger_of(one).read_bytes() + b"0 x\n1 x\n" + tail)
    key = lms_key.LmsKey(one)
    assert [leaf(key.sign(b"m")) for _ in range(2)] == [3, 4]


def test_a_ledger_that_is_missing_damaged_or_foreign_is_refused(one: Path, tmp_path: Path) -> None:
    path = ledger_of(one)
    good = path.read_bytes()
    other = tmp_path / "other"
    sign.generate_key(other, "lms-h5")
    for text, problem in (
        (None, "is missing"),
        (b"", "is not the ledger"),
        (good[:-1], "is not the ledger"),
        (ledger_of(other).read_bytes(), "is not the ledger"),
        (good + b"0 x\n2 x\n", "line 3 is damaged"),
        (good + b"1 x\n", "line 2 is damaged"),
    ):
        if text is None:
            path.unlink()
        else:
            path.write_bytes(text)
        with pytest.raises(InputError, match=problem):
            lms_key.LmsKey(one).sign(b"m")


def test_signers_at_the_same_time_get_different_leaves(one: Path) -> None:
    leaves: list[int] = []

    def work() -> None:
        leaves.append(leaf(lms_key.LmsKey(one).sign(os.urandom(8))))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(leaves) == list(range(6))


def test_a_damaged_key_signs_nothing(one: Path) -> None:
    secret = json.loads(one.read_text())
    secret["seed"] = "00" * 32
    one.write_text(json.dumps(secret))
    with pytest.raises(InputError, match="damaged"):
        lms_key.LmsKey(one).sign(b"m")


# Rotations.


def test_a_rotation_needs_both_sides(keys: dict[str, Path], tmp_path: Path) -> None:
    old, new = keys["ecdsa-p256"], keys["rsa-3072"]
    before = sign.trust_document([old], security_version_floor=4, expires=2_000_000_000)
    step = rotation.rotate(before, sign.trust_document([new]))
    assert json.loads(step.text)["version"] == 2
    assert json.loads(step.text)["security_version_floor"] == 4
    sign.sign(step, old)
    with pytest.raises(InputError, match="0 valid, 1 needed of version 2"):
        second.both(step, before)
    sign.sign(step, new)
    assert second.both(step, before) == [before["keys"][0]["id"]]
    step.write(tmp_path / "step")
    assert rotation.Rotation.read(tmp_path / "step") == step
    assert rotation.read_trust(tmp_path / "step")["version"] == 2
    with pytest.raises(InputError, match="cannot follow"):
        second.both(step, rotation.read_trust(tmp_path / "step"))


# The commands.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made(tmp_path)
    return tmp_path


def artifact(*arguments: str) -> int:
    return main(["artifact", *arguments])


def test_rotation_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("old.pem", "new.pem"):
        assert artifact("keygen", name) == 0
    assert artifact("trust", "old.pem", "--out", "trust.json") == 0
    assert artifact("rotate", "trust.json", "new.pem", "--out", "step", "--sign", "old.pem") == 0
    capsys.readouterr()
    assert artifact("verify", "step", "--trust", "trust.json") == 2
    assert "0 valid, 1 needed of version 2 (new keys)" in capsys.readouterr().err
    assert artifact("sign", "step", "--key", "new.pem", "--rotation", "trust.json") == 0
    capsys.readouterr()
    assert artifact("verify", "step", "--trust", "trust.json") == 0
    assert "valid: trust version 2" in capsys.readouterr().out
    assert artifact("inspect", "step", "--trust", "trust.json", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in shown["signatures"]] == ["valid", "valid"]
    assert artifact("trust-job", "step") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["operation"], len(document["envelopes"])) == ("trust", 1)


def test_inspect_shows_people_every_member_file_and_signature(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact("keygen", "key.pem")
    artifact("trust", "key.pem", "--out", "trust.json")
    options = ["--board", "PUMP@2-3", "--require", "agent=0.1.0", "--expires", "1900000000", "--downgrade-from", "3.0"]
    assert artifact("build", "src", "--out", "out", "--name", "app", "--version", "2.0", *options) == 0
    artifact("sign", "out", "--key", "key.pem")
    capsys.readouterr()
    assert artifact("inspect", "out") == 0
    shown = capsys.readouterr().out
    for text in ("PUMP@2-3", "requires.agent", "2030-03-17", "app.mpy", "downgrade", "of 4096 bytes", "no --trust"):
        assert text in shown, text
    assert artifact("inspect", "out", "--trust", "trust.json") == 0
    assert "valid" in capsys.readouterr().out


def test_options_that_do_not_fit_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["build", "src", "--out", "out", "--name", "app", "--version", "2.0", "--board", "B"]
    assert artifact(*base, "--downgrade-from", "3.0") == 2
    assert "downgrade" in capsys.readouterr().err
    assert artifact(*base, "--require", "agent") == 2
    assert "FACT=VALUE" in capsys.readouterr().err


def test_the_envelope_of_a_hundred_files_is_under_4096_bytes(tmp_path: Path, keys: dict[str, Path]) -> None:
    (tmp_path / "src").mkdir()
    for number in range(100):
        (tmp_path / "src" / f"module_number_{number}.bin").write_bytes(os.urandom(number))
    signed = made(tmp_path)
    for kind in ("ecdsa-p256", "rsa-2048"):
        sign.sign(signed, keys[kind])
    assert len(signed.info.files) == 101
    assert len(signed.envelope) <= 4096
