# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from edgefleet import pki
from edgefleet.errors import ApiError, InputError
from edgefleet.pki import Authority
from tests.support import MICROPYTHON


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority.load_or_create(folder)


def csr(key: object, algorithm: hashes.HashAlgorithm | None = None) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "whatever the device says")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)  # type: ignore[arg-type]
    return request.public_bytes(serialization.Encoding.PEM).decode()


# The authority's files


def test_the_authority_is_the_same_after_a_restart(folder: Path, authority: Authority) -> None:
    assert Authority.load_or_create(folder).ca_pem == authority.ca_pem


def test_the_key_is_for_its_owner_only(folder: Path, authority: Authority) -> None:
    assert stat.S_IMODE((folder / "ca.key").stat().st_mode) == 0o600


def test_a_crash_between_key_and_certificate_is_repaired(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path)
    key = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.pem").unlink()
    Authority.load_or_create(tmp_path)
    assert (tmp_path / "ca.key").read_bytes() == key


def test_a_lost_key_is_not_replaced_silently(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(InputError, match=r"ca\.key: is missing"):
        Authority.load_or_create(tmp_path)


def test_a_foreign_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    Authority.load_or_create(tmp_path)
    (tmp_path / "ca.pem").write_text(authority.ca_pem)
    with pytest.raises(InputError, match="does not belong to the key"):
        Authority.load_or_create(tmp_path)


@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    Authority.load_or_create(tmp_path)
    (tmp_path / name).write_text("rubbish")
    with pytest.raises(InputError, match=name):
        Authority.load_or_create(tmp_path)


# Device certificates


def test_keys_have_the_traditional_pem_forms(authority: Authority) -> None:
    ec_key = authority.issue_device()[1]
    rsa_key = authority.issue_device(key_type="rsa2048")[1]
    assert ec_key is not None and ec_key.startswith("-----BEGIN EC PRIVATE KEY-----\n")
    assert rsa_key is not None and rsa_key.startswith("-----BEGIN RSA PRIVATE KEY-----\n")


def test_a_device_certificate_says_what_it_is(authority: Authority) -> None:
    pem, key_pem = authority.issue_device()
    certificate = x509.load_pem_x509_certificate(pem.encode())
    key = serialization.load_pem_private_key((key_pem or "").encode(), None)
    assert pem.endswith("\n")
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=AWS IoT Certificate"
    assert certificate.not_valid_after_utc.year == 2049
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usages = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usages == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]


def test_an_unknown_key_type_is_refused(authority: Authority) -> None:
    with pytest.raises(InputError, match="dsa"):
        authority.issue_device(key_type="dsa")


def test_the_certificate_id_is_the_hash_of_the_der(authority: Authority) -> None:
    pem, _ = authority.issue_device()
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    expected = hashlib.sha256(der).hexdigest()
    assert pki.certificate_id(pem) == pki.certificate_id(pem.encode()) == pki.certificate_id(der) == expected


@pytest.mark.parametrize("text", ["", "rubbish", "-----BEGIN CERTIFICATE-----\n?!\n-----END CERTIFICATE-----"])
def test_text_that_is_no_certificate_has_no_id(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        pki.certificate_id(text)
    assert caught.value.code == "CertificateValidationException"


# Certificate signing requests


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_a_csr_is_certified_with_its_key_and_our_name(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    pem, private = authority.issue_device(csr(key, hashes.SHA256()))
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert private is None
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=AWS IoT Certificate"


def forged() -> str:
    """A request whose signature was made by another key: the last byte of a valid one is changed."""
    text = csr(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    der = bytearray(x509.load_pem_x509_csr(text.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    body = ssl.DER_cert_to_PEM_cert(bytes(der))
    return body.replace("CERTIFICATE", "CERTIFICATE REQUEST")


@pytest.mark.parametrize(
    ("request_pem", "message"),
    [
        ("", "must be a PEM text"),
        ("rubbish", "is not a PKCS#10 request"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "is not a PKCS#10"),
        ("x" * 4097, "at most 4096"),
        (forged(), "signature does not fit"),
        (csr(ed25519.Ed25519PrivateKey.generate()), "key type is not supported"),
        (csr(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()), "curve secp256k1 is not supported"),
        (csr(rsa.generate_private_key(65537, 1024), hashes.SHA256()), "RSA key of 1024 bits"),
    ],
)
def test_a_bad_csr_is_refused_with_the_reason(authority: Authority, request_pem: str, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        authority.issue_device(request_pem)
    assert caught.value.code == "InvalidRequestException"


# Handshakes


@pytest.mark.parametrize("host", ["", "a" * 64 + ".example", "no spaces", "x\n", "-x", "a/b"])
def test_a_host_that_cannot_be_certified_is_named(authority: Authority, host: str) -> None:
    with pytest.raises(InputError, match=f"host '{host}'"):
        authority.issue_server([host])


def test_a_server_needs_a_host(authority: Authority) -> None:
    with pytest.raises(InputError, match="hosts"):
        authority.issue_server([])


@contextmanager
def serving(authority: Authority, folder: Path) -> Iterator[tuple[int, list[str]]]:
    """A TLS server that accepts one connection, notes the peer's certificate id (or the TLS error), answers `ok`."""
    certificate, key = authority.issue_server(["localhost", "127.0.0.1"])
    (folder / "server.pem").write_text(certificate)
    (folder / "server.key").write_text(key)
    context = pki.server_context(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    seen: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(20)
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                seen.append(pki.certificate_id(tls.getpeercert(binary_form=True) or b""))
                tls.sendall(b"ok\n")
                tls.recv(1)
        except OSError as error:
            seen.append(type(error).__name__)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], seen
    thread.join(20)
    listener.close()


def client_context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("key_type", ["ec", "rsa2048"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_cpython_connects(
    authority: Authority, folder: Path, host: str, key_type: str, version: ssl.TLSVersion
) -> None:
    certificate, key = authority.issue_device(key_type=key_type)
    (folder / "device.pem").write_text(certificate + (key or ""))
    context = client_context(folder)
    context.load_cert_chain(str(folder / "device.pem"))
    context.minimum_version = context.maximum_version = version
    with (
        serving(authority, folder) as (port, seen),
        socket.create_connection(("127.0.0.1", port), 20) as raw,
        context.wrap_socket(raw, server_hostname=host) as tls,
    ):
        assert tls.recv(3) == b"ok\n"
    assert seen == [pki.certificate_id(certificate)]


def test_a_client_without_certificate_is_turned_away(authority: Authority, folder: Path) -> None:
    context = client_context(folder)
    with (
        serving(authority, folder) as (port, seen),
        socket.create_connection(("127.0.0.1", port), 20) as raw,
        pytest.raises(OSError),
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.recv(3)  # TLS 1.3: the refusal arrives after the client's side of the handshake
    assert seen == ["SSLError"]


def test_a_certificate_of_another_authority_is_turned_away(authority: Authority, folder: Path, tmp_path: Path) -> None:
    certificate, key = Authority.load_or_create(tmp_path).issue_device()
    (folder / "stranger.pem").write_text(certificate + (key or ""))
    context = client_context(folder)
    context.load_cert_chain(str(folder / "stranger.pem"))
    with (
        serving(authority, folder) as (port, seen),
        socket.create_connection(("127.0.0.1", port), 20) as raw,
        pytest.raises(OSError),
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.recv(3)
    assert seen == ["SSLCertVerificationError"]


def test_a_client_that_expects_another_host_does_not_connect(authority: Authority, folder: Path) -> None:
    context = client_context(folder)
    with (
        serving(authority, folder) as (port, _),
        socket.create_connection(("127.0.0.1", port), 20) as raw,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(raw, server_hostname="example.org")


def pem_to_der(pem: str) -> bytes:
    return base64.b64decode("".join(pem.splitlines()[1:-1]))


_BOARD = """
import socket, ssl
def read(name):
    with open(name, "rb") as file:
        return file.read()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.verify_mode = ssl.CERT_REQUIRED
context.load_verify_locations(cadata=read("ca.der"))
context.load_cert_chain(read("device.der"), read("device.key.der"))
link = socket.socket()
link.connect(socket.getaddrinfo("127.0.0.1", PORT)[0][-1])
print(context.wrap_socket(link, server_hostname=HOST).read(3))
"""


@pytest.mark.parametrize(("key_type", "host"), [("ec", "localhost"), ("ec", "127.0.0.1"), ("rsa2048", "localhost")])
def test_micropython_connects_with_der_files(authority: Authority, folder: Path, key_type: str, host: str) -> None:
    certificate, key = authority.issue_device(key_type=key_type)
    for name, pem in (("ca.der", authority.ca_pem), ("device.der", certificate), ("device.key.der", key or "")):
        (folder / name).write_bytes(pem_to_der(pem))
    with serving(authority, folder) as (port, seen):
        script = _BOARD.replace("PORT", str(port)).replace("HOST", repr(host))
        board = subprocess.run(
            [MICROPYTHON, "-X", "heapsize=256k", "-c", script],
            cwd=folder,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert board.stdout == "b'ok\\n'\n", board.stderr
    assert seen == [pki.certificate_id(certificate)]
