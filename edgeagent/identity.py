# SPDX-License-Identifier: Apache-2.0
"""Who this device is: thing name, certificate, private key, kept so that a power cut leaves the old or the new one.

    state_dir/identity/g<N>/cert, key, thing.json     one generation; thing.json holds the hashes of the other two
    state_dir/identity/current                        N: one small file, replaced atomically

A generation is written whole before `current` names it, and stays until the next but one is stored. If the current one
does not match its hashes (worn flash), the newest other one that does is used. Contents are never logged.
"""

import binascii
import hashlib
import json
import os

from edgeagent import compat, log
from edgeagent.errors import ConfigError
from edgeagent.limits import LIMITS

try:
    from typing import Any
except ImportError:
    pass


def pem_to_der(pem: "bytes | str") -> bytes:
    """The DER bytes of the first PEM block. Raises ConfigError("PEM") on anything else."""
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        start = data.index(b"-----BEGIN ")
        start = data.index(b"\n", start)
        der = binascii.a2b_base64(data[start : data.index(b"-----END ", start)])
    except ValueError:
        der = b""
    # Certificates and keys of all kinds are one ASN.1 SEQUENCE; encrypted PEM keys have headers and fail here.
    if der[:1] != b"\x30" or len(der) > LIMITS.CREDENTIAL_BYTES:
        raise ConfigError("PEM", "not a certificate or unencrypted key of at most %d bytes" % LIMITS.CREDENTIAL_BYTES)
    return der


def _hash(data: bytes) -> str:
    return binascii.hexlify(hashlib.sha256(data).digest()).decode()


class Identity:
    """The stored identity of one device."""

    def __init__(self, state_dir: str, pem: bool) -> None:
        """pem: store credentials as PEM, otherwise as DER (see Port.pem)."""
        self._root = state_dir + "/identity"
        self._pem = pem

    def load(self) -> "tuple[str, str, str] | None":
        """(thing name, certificate path, key path), or None if there is no usable identity."""
        found = self._find()
        if found is None:
            return None
        folder = "%s/g%d" % (self._root, found[0])
        return found[1], folder + "/cert", folder + "/key"

    def store(self, thing_name: str, certificate_pem: str, key_pem: str) -> None:
        """Replace the identity. Raises ConfigError if the credentials are no PEM, OSError if the flash fails.

        Whatever it raises, and wherever power fails, `load` gives the old identity or the new one.
        """
        certificate = pem_to_der(certificate_pem)
        key = pem_to_der(key_pem)
        if self._pem:
            certificate = certificate_pem.encode()
            key = key_pem.encode()
        found = self._find()
        old = found[0] if found else 0
        number = 1
        for other in self._generations():
            number = max(number, other + 1)
            if other != old:
                compat.remove_tree("%s/g%d" % (self._root, other))
        folder = "%s/g%d" % (self._root, number)
        compat.make_dirs(folder)
        compat.write_atomic(folder + "/cert", certificate)
        compat.write_atomic(folder + "/key", key, True)
        record = {"thingName": thing_name, "cert": _hash(certificate), "key": _hash(key)}
        compat.write_atomic(folder + "/thing.json", json.dumps(record).encode())
        compat.write_atomic(self._root + "/current", b"%d" % number)

    def _generations(self) -> "list[int]":
        """Numbers of the generations on flash, newest first."""
        found = []
        if compat.exists(self._root):
            for name in os.listdir(self._root):
                if name[:1] == "g" and name[1:].isdigit():
                    found.append(int(name[1:]))
        return sorted(found, reverse=True)

    def _find(self) -> "tuple[int, str] | None":
        numbers = self._generations()
        pointer = compat.read_file(self._root + "/current", 16) or b""
        if pointer.isdigit():
            numbers = [int(pointer)] + [n for n in numbers if n < int(pointer)]
        for number in numbers:
            name = self._check("%s/g%d" % (self._root, number))
            if name:
                return number, name
            log.warning("identity", "generation %d is not whole", number)
        return None

    def _check(self, folder: str) -> "Any":
        """The thing name of a generation, None if it is not whole."""
        try:
            record = json.loads((compat.read_file(folder + "/thing.json", 512) or b"").decode())
            for name in ("cert", "key"):
                data = compat.read_file(folder + "/" + name, LIMITS.CREDENTIAL_BYTES)
                if data is None or _hash(data) != record[name]:
                    return None
            return record["thingName"]
        except (ValueError, KeyError, TypeError):
            return None
