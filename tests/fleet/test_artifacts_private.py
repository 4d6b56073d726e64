# SPDX-License-Identifier: Apache-2.0
"""Private keys in an application's folder: none gets into an artifact, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.artifacts import sign
from edgefleet.artifacts.build import Artifact, build
from edgefleet.artifacts.private import is_private_key
from edgefleet.errors import InputError

EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8, TRADITIONAL = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
PLAIN, LOCKED = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"secret")
OPENSSH = serialization.PrivateFormat.OpenSSH
PUBLIC = serialization.PublicFormat.SubjectPublicKeyInfo
KEYS = {
    f"{kind} {encoding} {form} {'locked' if lock is LOCKED else 'plain'}": key.private_bytes(encoding, form, lock)
    for kind, key in (("ec", EC), ("rsa", RSA))
    for encoding, form, lock in (
        (PEM, PKCS8, PLAIN),
        (PEM, PKCS8, LOCKED),
        (PEM, TRADITIONAL, PLAIN),
        (PEM, TRADITIONAL, LOCKED),
        (PEM, OPENSSH, PLAIN),
        (DER, PKCS8, PLAIN),
        (DER, PKCS8, LOCKED),
        (DER, TRADITIONAL, PLAIN),
    )
}
_TEXT = KEYS["ec Encoding.PEM PrivateFormat.PKCS8 plain"].decode()


def built(folder: Path, name: str, data: bytes) -> Artifact:
    (folder / "src" / "sub").mkdir(parents=True)
    (folder / "src" / "app.py").write_text("x = 1\n")
    (folder / "src" / "sub" / name).write_bytes(data)
    return build(folder / "src", name="app", version="1", boards=["B"])


@pytest.mark.parametrize("data", KEYS.values(), ids=KEYS.keys())
def test_a_private_key_in_the_folder_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match=r"sub/key\.bin: holds a private key"):
        built(tmp_path, "key.bin", data)


@pytest.mark.parametrize(
    "source", [f'KEY = """{_TEXT}"""\n', f"KEY = {_TEXT!r}\n"], ids=["over several lines", "in one line"]
)
def test_a_key_in_a_source_file_is_refused_before_it_is_compiled(tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match=r"sub/secret\.py: holds a private key"):
        built(tmp_path, "secret.py", source.encode())


def test_the_seed_of_an_lms_key_is_refused(tmp_path: Path) -> None:
    sign.generate_key(tmp_path / "lms", "lms-h5")
    with pytest.raises(InputError, match="sub/lms: holds a private key"):
        built(tmp_path, "lms", (tmp_path / "lms").read_bytes())


@pytest.mark.parametrize(
    "data",
    [
        EC.public_key().public_bytes(PEM, PUBLIC),
        RSA.public_key().public_bytes(DER, PUBLIC),
        b'{"algorithm": "lms-sha256", "id": "00", "public": "00"}',
        b'{"seed": 1}',
        b'HEAD = "-----BEGIN PRIVATE KEY-----"\nif text.startswith(HEAD):\n    raise ValueError("no keys here")\n',
        b"{" + b"[" * 4000,
        b"",
    ],
    ids=["public PEM", "public DER", "public LMS", "a seed for something else", "a reader of PEM", "no JSON", "empty"],
)
def test_other_files_are_packed_as_they_are(tmp_path: Path, data: bytes) -> None:
    assert dict(built(tmp_path, "file.bin", data).files())["sub/file.bin"] == data


@given(st.binary(max_size=300), st.sampled_from([b"", b"{", b"\x30\x82\x01", *[one[:60] for one in KEYS.values()]]))
def test_any_bytes_are_judged(data: bytes, head: bytes) -> None:
    assert is_private_key(head + data) in (True, False)
