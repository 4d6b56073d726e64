# SPDX-License-Identifier: Apache-2.0
"""The site's private certificate authority: device and server certificates, and the TLS context of the broker.

Extensions are chosen so that CPython's ssl, OpenSSL in strict mode and Mbed TLS (MicroPython) all accept the chain:
basicConstraints and keyUsage critical, extendedKeyUsage, subject and authority key identifiers.
Source of names and formats: aws-iot-protocol.md sections 6.1, 7.6.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import ipaddress
import os
import re
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgefleet.errors import ApiError, InputError, invalid

CSR_CHARACTERS = 4096  # section 7.6
CERTIFICATE_CHARACTERS = 65536  # the model's certificatePem
DEVICE_COMMON_NAME = "AWS IoT Certificate"
CA_COMMON_NAME = "edgefleet site CA"
# As AWS does (section 7.6): a device that was in a drawer for ten years must still be let in.
NOT_AFTER = datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS = (2048, 4096)  # the upper bound keeps one handshake from costing the broker a second
_DNS_NAME = re.compile(r"(?!-)(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
ALPN = ["x-amzn-mqtt-ca", "mqtt"]  # section 2.1

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class Authority:
    """A certificate authority with a P-256 key. Make it with `load_or_create`."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self.ca_pem = certificate.public_bytes(serialization.Encoding.PEM).decode()

    @classmethod
    def load_or_create(cls, folder: Path) -> Authority:
        """The authority kept in `folder` (`ca.key`, mode 0600, and `ca.pem`), made on first use.

        A crash between the two files is repaired: the certificate is made again for the key that is there.
        Raises InputError if a file is damaged, does not fit the other, or the key is missing: a new CA behind the
        back of the operator would lock every device out.
        """
        folder.mkdir(parents=True, exist_ok=True)
        key_path, certificate_path = folder / "ca.key", folder / "ca.pem"
        if not key_path.exists():
            if certificate_path.exists():
                raise InputError(f"{key_path}: is missing, but {certificate_path} exists; restore it from your backup")
            key = ec.generate_private_key(ec.SECP256R1())
            _write_durably(key_path, _key_pem(key).encode(), 0o600)
        else:
            key = _load_ca_key(key_path)
        if not certificate_path.exists():
            pem = _ca_certificate(key).public_bytes(serialization.Encoding.PEM)
            _write_durably(certificate_path, pem, 0o644)
        try:
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except ValueError as error:
            raise InputError(f"{certificate_path}: is not a PEM certificate ({error})") from error
        if certificate.public_key() != key.public_key():
            raise InputError(f"{certificate_path}: does not belong to the key in {key_path}")
        return cls(key, certificate)

    def issue_device(self, csr_pem: str | None = None, key_type: str = "ec") -> tuple[str, str | None]:
        """A device certificate.

        csr_pem: PKCS#10 request; only its public key is used. None: a key pair is made here.
        key_type: `ec` (P-256) or `rsa2048`, used without a CSR.
        Returns (certificate PEM, key PEM or None). Keys are in the traditional forms devices expect: SEC1
        `BEGIN EC PRIVATE KEY`, PKCS#1 `BEGIN RSA PRIVATE KEY`.
        Raises InvalidRequestException for a CSR that is malformed, badly signed, or of an unsupported key.
        """
        key: PrivateKey | None = None
        if csr_pem is not None:
            public = check_csr(csr_pem)
        else:
            key = _new_key(key_type)
            public = key.public_key()
        certificate = self._issue(public, DEVICE_COMMON_NAME, ExtendedKeyUsageOID.CLIENT_AUTH, None)
        return certificate, None if key is None else _key_pem(key)

    def issue_server(self, hosts: list[str]) -> tuple[str, str]:
        """(certificate PEM, P-256 key PEM) of a server reached as any of `hosts` (DNS names and IP addresses).

        Raises InputError naming the host that cannot stand in a certificate.
        """
        if not hosts:
            raise InputError("hosts: name at least one DNS name or IP address of the server")
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(key.public_key(), hosts[0][:64], ExtendedKeyUsageOID.SERVER_AUTH, names)
        return certificate, _key_pem(key)

    def _issue(
        self, public: PublicKey, name: str, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
    ) -> str:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_not_before())
            .not_valid_after(NOT_AFTER)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(rsa_transport=isinstance(public, rsa.RSAPublicKey)), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def check_csr(csr_pem: str) -> PublicKey:
    """The public key of a certificate signing request that we may certify.

    Raises InvalidRequestException saying what is wrong: size, form, signature, key type or size (sections 6.1, 7.6).
    """
    if not isinstance(csr_pem, str) or not csr_pem:
        raise invalid("certificateSigningRequest: must be a PEM text")
    if len(csr_pem) > CSR_CHARACTERS:
        raise invalid(f"certificateSigningRequest: has {len(csr_pem)} characters, at most {CSR_CHARACTERS} are allowed")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        public = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, TypeError) as error:
        raise invalid(f"certificateSigningRequest: is not a PKCS#10 request in PEM form ({_short(error)})") from error
    if not signed:
        raise invalid("certificateSigningRequest: its signature does not fit its key")
    _check_key(public)
    if not isinstance(request.signature_hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise invalid("certificateSigningRequest: must be signed with SHA-256, SHA-384 or SHA-512")
    assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return public


def _check_key(public: object) -> None:
    if isinstance(public, ec.EllipticCurvePublicKey):
        if not isinstance(public.curve, _CURVES):
            raise invalid(
                f"certificateSigningRequest: curve {public.curve.name} is not supported, use P-256, P-384 or P-521"
            )
    elif isinstance(public, rsa.RSAPublicKey):
        least, most = _RSA_BITS
        if not least <= public.key_size <= most:
            raise invalid(f"certificateSigningRequest: RSA key of {public.key_size} bits, must be {least} to {most}")
    else:
        raise invalid("certificateSigningRequest: key type is not supported, use EC or RSA")


def load_certificate(pem: str) -> x509.Certificate:
    """Parse one PEM certificate. Raises CertificateValidationException 400."""
    try:
        if len(pem) > CERTIFICATE_CHARACTERS:
            raise ValueError(f"more than {CERTIFICATE_CHARACTERS} characters")
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise ApiError(
            "CertificateValidationException", f"certificatePem: is not a PEM certificate ({_short(error)})", 400
        ) from error


def certificate_id(certificate: str | bytes) -> str:
    """SHA-256 of the DER form, lower-case hex (section 1.1). Takes PEM (str or bytes) or DER.

    Raises CertificateValidationException 400 for text that is not PEM.
    """
    data = certificate.encode() if isinstance(certificate, str) else certificate
    marker = data.find(b"-----BEGIN CERTIFICATE-----")
    if marker >= 0 or isinstance(certificate, str):
        end = data.find(b"-----END CERTIFICATE-----")
        try:
            if marker < 0 or end < marker:
                raise ValueError("no certificate in it")
            data = base64.b64decode(b"".join(data[marker + 27 : end].split()), validate=True)
        except (ValueError, binascii.Error) as error:
            raise ApiError(
                "CertificateValidationException", f"certificate: is not PEM ({_short(error)})", 400
            ) from error
    return hashlib.sha256(data).hexdigest()


def public_key_pem(certificate_pem: str) -> str:
    """The public key of a certificate, PEM SubjectPublicKeyInfo (`keyPair.PublicKey` of section 7.6)."""
    return (
        load_certificate(certificate_pem)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def server_context(cert_path: Path | str, key_path: Path | str, ca_path: Path | str) -> ssl.SSLContext:
    """TLS of the device endpoint: TLS 1.2 or newer, a client certificate of our CA is demanded (section 2.1)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(str(cert_path), str(key_path))
    context.load_verify_locations(str(ca_path))
    # A peer can make the server pay for a key exchange again and again on one connection; nobody needs that.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(ALPN)  # clients that offer none, or others, are served too
    return context


def _ca_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CA_COMMON_NAME)])
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_not_before())
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _not_before() -> datetime.datetime:
    """Yesterday: a device whose clock is some hours behind must not refuse a fresh certificate."""
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)).replace(microsecond=0)


def _key_usage(authority: bool = False, rsa_transport: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=rsa_transport,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _new_key(key_type: str) -> PrivateKey:
    if key_type == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    if key_type == "rsa2048":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    raise InputError(f"key type '{key_type}': must be 'ec' or 'rsa2048'")


def _key_pem(key: PrivateKey) -> str:
    """TraditionalOpenSSL is SEC1 for EC and PKCS#1 for RSA, the forms of section 6.1."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        name = host.encode("idna").decode()
    except ValueError:
        name = ""
    if not _DNS_NAME.fullmatch(name):
        raise InputError(f"host '{host[:80]}': is neither an IP address nor a DNS name")
    return x509.DNSName(name)


def _load_ca_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path}: is not an unencrypted PEM private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"{path}: must be an EC key")
    return key


def _write_durably(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is either absent or whole after a crash, readable only as `mode` says from the start."""
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _short(error: Exception) -> str:
    """One line of a parser's complaint; cryptography's can be long and point to its FAQ."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
