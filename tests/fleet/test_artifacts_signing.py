# SPDX-License-Identifier: Apache-2.0
"""What whoever signs is protected from: rotations in the place of artifacts, trust files that end in a dead end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgefleet.artifacts import room, rotation, sign
from edgefleet.artifacts import verify as second
from edgefleet.artifacts.build import Artifact
from edgefleet.cli import main
from edgefleet.errors import InputError


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KIND-0 … KIND-7 for each kind that is cheap to make, and some of the others."""
    folder = tmp_path_factory.mktemp("keys")
    for kind, count in (("ecdsa-p256", 8), ("rsa-2048", 1), ("rsa-3072", 5), ("rsa-4096", 3), ("lms-h5", 4)):
        for number in range(count):
            sign.generate_key(folder / f"{kind}-{number}", kind)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with old.pem, new.pem, trust.json (of old.pem) and the unsigned artifact `out`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("x = 1\n")
    for name in ("old.pem", "new.pem"):
        sign.generate_key(tmp_path / name)
    (tmp_path / "trust.json").write_text(json.dumps(sign.trust_document([tmp_path / "old.pem"])))
    assert build() == 0
    return tmp_path


def artifact(*arguments: str) -> int:
    return main(["artifact", *arguments])


def build(*more: str) -> int:
    return artifact("build", "src", "--out", "out", "--name", "app", "--version", "2.0.0", "--board", "B", *more)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert artifact(*arguments) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert artifact(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def key_of(path: Path) -> str:
    return str(sign.trust_document([path])["keys"][0]["id"])


def rotate(folder: Path, out: str, *signers: str) -> Path:
    step = rotation.rotate(rotation.read_trust(folder / "trust.json"), sign.trust_document([folder / "new.pem"]))
    for name in signers:
        sign.sign(step, folder / name)
    step.write(folder / out)
    return folder / out


# 1: what is signed is what was meant.


def test_a_rotation_in_an_artifacts_folder_is_not_signed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = rotate(folder, "step", "new.pem")
    for part in ("envelope", "trust.json"):
        shutil.copy(step / part, folder / "out" / part)
    assert "--rotation" in refused(capsys, "sign", "out", "--key", "old.pem")
    (folder / "out" / "trust.json").unlink()
    assert "out/envelope: manifest" in refused(capsys, "sign", "out", "--key", "old.pem")
    assert [key.hex() for key, _, _ in rotation.Rotation.read(step).signatures] == [key_of(folder / "new.pem")]
    assert (folder / "out" / "envelope").read_bytes() == (step / "envelope").read_bytes()


def test_an_artifact_is_not_signed_as_a_rotation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "sign", "out", "--key", "old.pem", "--rotation", "trust.json")
    assert "out/envelope: is not a trust document" in line
    assert not Artifact.read(folder / "out").signatures


def test_signing_says_which_artifact_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("--security-version", "3", "--downgrade-from", "2.1.0", "--expires", "4000000000")
    assert said(capsys, "sign", "out", "--key", "old.pem").splitlines() == [
        "application: app 2.0.0, security version 3",
        "may go back from: 2.1.0",
        key_of(folder / "old.pem"),
    ]


def test_signing_a_rotation_says_which_keys_come_and_go(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rotate(folder, "step", "new.pem")
    old, new = (key_of(folder / name) for name in ("old.pem", "new.pem"))
    lines = said(capsys, "sign", "step", "--key", "old.pem", "--rotation", "trust.json").splitlines()
    assert lines[0].startswith("rotation: trust version 2: 1 of 1 keys, security version 0 (in force: 1 of 1 keys,")
    assert lines[1:] == [
        f"keys that come: {new} ecdsa-p256",
        f"keys that go: {old} ecdsa-p256",
        " ".join(sorted((old, new))),
    ]
    assert said(capsys, "verify", "step", "--trust", "trust.json").startswith("valid: trust version 2")


def test_a_rotation_of_another_version_is_not_signed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = rotate(folder, "step")
    line = refused(capsys, "sign", "step", "--key", "new.pem", "--rotation", str(step))
    assert "version: 2 cannot follow 2" in line
    assert not rotation.Rotation.read(step).signatures


# 2, 4, 5: trust files and rotations as strangers write them.


def test_a_rotation_whose_trust_file_is_not_what_was_signed_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = rotate(folder, "step", "old.pem", "new.pem")
    assert said(capsys, "verify", "step", "--trust", "trust.json")
    other = json.loads((step / "trust.json").read_text()) | {"threshold": 1, "security_version_floor": 7}
    for text in (json.dumps(other), (step / "trust.json").read_text() + "\n"):
        (step / "trust.json").write_text(text)
        for arguments in (
            ("inspect", "step"),
            ("verify", "step", "--trust", "trust.json"),
            ("sign", "step", "--key", "old.pem", "--rotation", "trust.json"),
            ("rotate", "step", "old.pem", "--out", "next"),
            ("trust-job", "step"),
        ):
            line = refused(capsys, *arguments)
            assert "step/trust.json: is not the trust document" in line


@pytest.mark.parametrize("version", [{}, {"version": None}], ids=["missing", "null"])
def test_a_rotation_without_a_version_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], version: dict[str, Any]
) -> None:
    document = sign.trust_document([folder / "old.pem"])
    del document["version"], document["security_version_floor"]
    step = rotation.Rotation(json.dumps(document | version).encode())
    sign.sign(step, folder / "old.pem").write(folder / "step")
    assert "version: 1 cannot follow 1" in refused(capsys, "verify", "step", "--trust", "trust.json")
    assert said(capsys, "inspect", "step", "--trust", "trust.json")


def test_ids_in_upper_case_are_the_same_keys(folder: Path) -> None:
    trust = rotation.read_trust(folder / "trust.json")
    for member in ("id", "public"):
        trust["keys"][0][member] = trust["keys"][0][member].upper()
    signed = sign.sign(Artifact.read(folder / "out"), folder / "old.pem")
    assert second.both(signed, trust) == [key_of(folder / "old.pem")]
    step = rotation.rotate(trust, sign.trust_document([folder / "old.pem"]))
    assert [name for name, _ in step.changes(trust)] == ["keys that stay"]


# 3: room for the next rotation.


@pytest.mark.parametrize(
    ("names", "threshold", "field"),
    [
        (["rsa-4096-0", "rsa-4096-1", "rsa-4096-2"], 2, "keys: .* of at most 4096"),
        ([f"rsa-3072-{n}" for n in range(5)], 1, "keys: .* of at most 4096"),
        (["lms-h5-0", "lms-h5-1"], 2, "keys: .* of at most 4096"),
        ([f"ecdsa-p256-{n}" for n in range(8)], 8, "threshold: .* of at most 8"),
    ],
    ids=["2 of 3 rsa-4096", "1 of 5 rsa-3072", "2 of 2 lms", "8 of 8"],
)
def test_a_trust_file_that_leaves_no_room_for_the_next_rotation_is_not_made(
    keys: Path, names: list[str], threshold: int, field: str
) -> None:
    with pytest.raises(InputError, match=field) as caught:
        sign.trust_document([keys / name for name in names], threshold)
    assert "fewer files" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "threshold", "other"),
    [
        (["rsa-4096-0", "rsa-4096-1"], 1, "rsa-4096-2"),
        (["rsa-3072-0", "rsa-3072-1"], 2, "rsa-3072-2"),
        (["ecdsa-p256-0", "rsa-2048-0", "lms-h5-0"], 3, "lms-h5-1"),
        (["lms-h5-0", "lms-h5-1", "ecdsa-p256-0"], 2, "lms-h5-2"),
        ([f"ecdsa-p256-{n}" for n in range(7)], 7, "ecdsa-p256-7"),
    ],
    ids=["1 of 2 rsa-4096", "2 of 2 rsa-3072", "3 of 3", "2 of lms, lms, ecdsa", "7 of 7"],
)
def test_any_key_of_a_trust_file_that_is_made_can_be_replaced(
    keys: Path, names: list[str], threshold: int, other: str
) -> None:
    """The largest signatures of those that have to sign, over a document with long numbers."""
    before = sign.trust_document([keys / name for name in names], threshold, 1 << 30, expires=1 << 33)
    kind = other[:-2]
    gone = next(name for name in names if name.startswith(kind))
    after = sign.trust_document(
        [keys / (other if name == gone else name) for name in names], threshold, 1 << 30, expires=1 << 33
    )
    step = rotation.rotate(before, after)
    stay = [name for name in names if name != gone]
    signers = [*names, other] if threshold == len(names) else sorted(stay, key=lambda name: "lms" not in name)
    for name in signers if threshold == len(names) else signers[:threshold]:
        sign.sign(step, keys / name)
    assert len(second.both(step, before)) == threshold
    assert len(step.envelope) <= 4096


def test_the_size_of_a_signature_is_known_before_it_is_made(keys: Path) -> None:
    for name in ("ecdsa-p256-0", "rsa-2048-0", "rsa-3072-0", "rsa-4096-0", "lms-h5-0"):
        entry = sign.trust_document([keys / name])["keys"][0]
        assert room.signature_bytes(entry) == 11 + len(sign.sign_text(b"x", keys / name)[2]), name


def test_a_step_for_which_no_choice_of_signers_fits_is_refused(keys: Path) -> None:
    """As such a file is in force already: from 2 of 2 LMS keys there is a way to others, but not to LMS keys."""
    entries = [sign.trust_document([keys / name])["keys"][0] for name in ("lms-h5-0", "lms-h5-1")]
    before = {"version": 1, "threshold": 2, "keys": entries, "security_version_floor": 0}
    with pytest.raises(InputError, match=r"keys: this step takes an envelope of \d+ bytes .* of at most 4096"):
        rotation.rotate(before, sign.trust_document([keys / "lms-h5-2"]))
    step = rotation.rotate(before, sign.trust_document([keys / "ecdsa-p256-0"]))
    for name in ("lms-h5-0", "lms-h5-1", "ecdsa-p256-0"):
        sign.sign(step, keys / name)
    assert len(second.both(step, before)) == 2
    three = [*entries, sign.trust_document([keys / "rsa-4096-0"])["keys"][0]]
    with pytest.raises(InputError, match="keys: this step takes"):
        rotation.rotate(before, before | {"threshold": 3, "keys": three})


def test_signatures_beyond_those_that_fit_are_refused_with_advice_that_helps(keys: Path) -> None:
    step = rotation.rotate(
        sign.trust_document([keys / "lms-h5-0"]), sign.trust_document([keys / "rsa-3072-0", keys / "rsa-3072-1"])
    )
    with pytest.raises(InputError, match="sign with fewer or smaller keys"):
        for name in ("lms-h5-0", "rsa-3072-0", "rsa-3072-1", "rsa-4096-0", "rsa-4096-1"):
            sign.sign(step, keys / name)
