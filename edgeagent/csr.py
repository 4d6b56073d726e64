# SPDX-License-Identifier: Apache-2.0
"""A P-256 key pair and its certificate signing request, made on the device: the private key never leaves it.

Sources: SEC 1 v2 section C.4 (key), RFC 2986 (request), RFC 5758 section 3.2 (ecdsa-with-SHA256), RFC 6979 section 3.2
(nonce). AWS IoT takes P-256 and does not look at the subject (aws-iot-protocol.md 6.1).

Randomness is os.urandom: esp_random on the ESP32, true random only while Wi-Fi or Bluetooth is on, as it is when a
certificate is asked for over Wi-Fi (on Ethernet alone let the claim ask for keys made by the service); the ring
oscillator on the RP2, raw; getrandom of the kernel on Linux and the unix port. What is plainly not random is refused.

Side channels: the order of curve operations does not depend on the secret, coordinates are randomised, and the nonce is
inverted under a mask; but the integers below are not constant-time. It is made for a device that signs one request in
its life with a key, not for a signing service that an attacker may time or probe.
"""

import asyncio
import binascii
import hashlib
import os

from edgeagent.compat import Any
from edgeagent.errors import ConfigError
from edgeagent.jobs.registry import unload
from edgeagent.p256 import GX, GY, N, P, add, double, number

_SPKI = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"
_KEY = b"\x30\x77\x02\x01\x01\x04\x20%s\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\xa1\x44\x03\x42\x00\x04%s"
_ALGORITHM = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"


def draw() -> int:
    """A random number from 1 to n - 1. Raises ConfigError if the source of randomness is plainly broken."""
    while True:
        data = os.urandom(64)
        # Constant, short-cycled or stuck bits. Good randomness fails one of these once in 2**58 draws.
        if len({data[i : i + 8] for i in range(0, 64, 8)}) < 8 or len(set(data)) < 24:
            raise ConfigError("os.urandom", "is not random")
        value = number(data, 0)
        if 0 < value < N:
            return value


async def multiply(k: int) -> "tuple[int, int]":
    """k·G in affine form, for a secret k from 1 to n - 1: a doubling and an addition for every bit."""
    k += N
    if not k >> 256:
        k += N  # 257 bits, whatever k was
    z = draw() % P
    x = GX * z * z % P
    y = GY * z * z * z % P
    for bit in range(255, -1, -1):
        x, y, z = double(x, y, z)
        x, y, z = ((x, y, z), add(x, y, z, GX, GY))[k >> bit & 1]
        if not bit & 3:
            await asyncio.sleep(0)
    z = pow(z, P - 2, P)
    return x * z * z % P, y * z * z * z % P


def _bytes(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _hmac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256 with a key of 32 bytes (RFC 2104)."""
    for pad in (0x36, 0x5C):
        data = hashlib.sha256(bytes([value ^ pad for value in key]) + bytes([pad]) * 32 + data).digest()
    return data


def nonces(secret: int, digest: bytes) -> "Any":
    """Candidates for the nonce of a signature, by RFC 6979: the first is right but for one case in 2**32."""
    key = bytes(32)
    value = b"\x01" * 32
    seed = _bytes(secret) + _bytes(number(digest, 0) % N)
    for step in (b"\x00", b"\x01"):
        key = _hmac(key, value + step + seed)
        value = _hmac(key, value)
    while True:
        value = _hmac(key, value)
        yield number(value, 0)
        key = _hmac(key, value + b"\x00")
        value = _hmac(key, value)


async def sign(secret: int, digest: bytes) -> "tuple[int, int]":
    """(r, s): the ECDSA signature over a SHA-256 digest. Source: FIPS 186-5 section 6.4.1."""
    for k in nonces(secret, digest):
        if 0 < k < N:
            r = (await multiply(k))[0] % N
            mask = draw()
            s = pow(k * mask % N, N - 2, N) * ((number(digest, 0) + r * secret) * mask % N) % N
            if r and s:
                return r, s
    raise AssertionError  # the candidates never end


def der(tag: int, *parts: bytes) -> bytes:
    """One DER element of less than 64 KiB."""
    content = b"".join(parts)
    size = len(content)
    if size > 255:
        return bytes([tag, 0x82, size >> 8, size & 255]) + content
    return bytes([tag, 0x81, size] if size > 127 else [tag, size]) + content


def _integer(value: int) -> bytes:
    data = _bytes(value)
    while not data[0] and data[1] < 128:
        data = data[1:]
    return der(2, b"\x00" if data[0] > 127 else b"", data)


def _pem(label: str, data: bytes) -> str:
    lines = [binascii.b2a_base64(data[i : i + 48]).decode() for i in range(0, len(data), 48)]
    return "-----BEGIN %s-----\n%s-----END %s-----\n" % (label, "".join(lines), label)


async def request(port: "Any", facts: "dict[str, Any]") -> "tuple[bytes, str]":
    """(key PEM, request PEM) for this device, made by the port if it has a way of its own. On boards this module is
    forgotten then: the service's answer needs the room. Raises ConfigError if there is no randomness.
    """
    name = facts.get("serial", "edgeagent")
    made = port.make_csr(name) if hasattr(port, "make_csr") else None
    made = made or await make_csr(name)
    unload(["edgeagent.csr", "edgeagent.p256"])
    return made


async def make_csr(name: str) -> "tuple[bytes, str]":
    """See Port.make_csr: (SEC 1 private key PEM, request PEM) for a common name, of which 64 characters are used.

    Some seconds on a board; it yields every four bits. Raises ConfigError if there is no randomness.
    """
    secret = draw()
    x, y = await multiply(secret)
    public = _bytes(x) + _bytes(y)
    subject = der(0x30, der(0x31, der(0x30, b"\x06\x03\x55\x04\x03", der(0x0C, name[:64].encode()))))
    info = der(0x30, b"\x02\x01\x00", subject, _SPKI, public, b"\xa0\x00")
    r, s = await sign(secret, hashlib.sha256(info).digest())
    request = der(0x30, info, _ALGORITHM, der(3, b"\x00", der(0x30, _integer(r), _integer(s))))
    key = _pem("EC PRIVATE KEY", _KEY % (_bytes(secret), public))
    return key.encode(), _pem("CERTIFICATE REQUEST", request)
