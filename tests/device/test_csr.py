# SPDX-License-Identifier: Apache-2.0
"""edgeagent/csr.py held against cryptography: what it signs verifies, what it makes loads."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent import csr, p256
from edgeagent.identity import pem_to_der
from tests.support import MICROPYTHON, ROOT

SECRETS = st.integers(1, p256.N - 1) | st.sampled_from([1, 2, p256.N - 1, 2**128, 2**255])


def judge(key_pem: bytes, request_pem: str, name: str) -> None:
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    again = serialization.load_der_private_key(pem_to_der(key_pem), None)
    assert isinstance(again, ec.EllipticCurvePrivateKey) and again.private_numbers() == key.private_numbers()
    request = x509.load_pem_x509_csr(request_pem.encode())
    assert request.is_signature_valid
    assert isinstance(request.signature_hash_algorithm, hashes.SHA256)
    assert request.public_key() == key.public_key()
    assert [part.value for part in request.subject] == [name]


@settings(max_examples=60, deadline=None)
@given(SECRETS, st.binary(min_size=32, max_size=32) | st.sampled_from([bytes(32), b"\xff" * 32]))
def test_what_it_signs_verifies(secret: int, digest: bytes) -> None:
    r, s = asyncio.run(csr.sign(secret, digest))
    public = ec.derive_private_key(secret, ec.SECP256R1()).public_key()
    public.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


@settings(max_examples=60, deadline=None)
@given(SECRETS)
def test_its_public_keys_are_right(secret: int) -> None:
    numbers = ec.derive_private_key(secret, ec.SECP256R1()).public_key().public_numbers()
    assert asyncio.run(csr.multiply(secret)) == (numbers.x, numbers.y)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=16))
def test_requests_and_keys_load(name: str) -> None:
    judge(*asyncio.run(csr.make_csr(name)), name)


def test_what_micropython_makes_loads(tmp_path: Path) -> None:
    code = (
        "import asyncio\nfrom edgeagent import csr\nk, c = asyncio.run(csr.make_csr('pump-7'))\nprint(k.decode() + c)"
    )
    for _ in range(5):
        text = subprocess.run(
            [MICROPYTHON, "-X", "heapsize=128k", "-c", code],
            env={"MICROPYPATH": f"{ROOT}:.frozen"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        at = text.index("-----BEGIN CERTIFICATE REQUEST")
        judge(text[:at].encode(), text[at:], "pump-7")


def test_openssl_and_the_fleets_own_authority_take_it(tmp_path: Path) -> None:
    from edgefleet import pki

    _, request = asyncio.run(csr.make_csr("pump-7"))
    result = subprocess.run(
        ["openssl", "req", "-verify", "-noout"], input=request, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    certificate, key = pki.Authority.load_or_create(tmp_path).issue_device(request)
    assert key is None and "BEGIN CERTIFICATE" in certificate
