# SPDX-License-Identifier: Apache-2.0
"""Who this device is: thing name, certificate, private key, kept so that a power cut leaves the old or the new one.

    state_dir/identity/a, b     cert, key, thing.json     two generations: the newest and the one before

A generation is whole if the hash in thing.json, which is written last, fits it; `count` tells which whole one is newer.
If that does not fit any more (worn flash), the other one is used. Contents are never logged.
"""

import binascii
import hashlib
import json

from edgeagent import compat
from edgeagent.compat import Any, const
from edgeagent.errors import ConfigError

_CREDENTIAL_BYTES = const(8192)


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
    if der[:1] != b"\x30" or len(der) > _CREDENTIAL_BYTES:
        raise ConfigError("PEM", "not a certificate or plain key")
    return der


def _digest(name: str, count: int, cert: bytes, key: bytes) -> str:
    data = ("%s %d " % (name, count)).encode() + cert + key
    return binascii.hexlify(hashlib.sha256(data).digest()).decode()


class Identity:
    """The stored identity of one device."""

    def __init__(self, state_dir: str, pem: bool) -> None:
        """pem: store credentials as PEM, otherwise as DER (see Port.pem)."""
        self.root = state_dir + "/identity/"
        self.pem = pem

    def load(self) -> "tuple[str, str, str] | None":
        """(thing name, certificate path, key path), or None if there is no usable identity."""
        count, folder, name = self._find()
        return (name, folder + "/cert", folder + "/key") if count else None

    def store(self, thing_name: str, certificate_pem: str, key_pem: str) -> None:
        """Replace the identity. Raises ConfigError if the credentials are no PEM, OSError if the flash fails.

        Whatever it raises, and wherever power fails, `load` gives the old identity or the new one.
        """
        cert = pem_to_der(certificate_pem)
        key = pem_to_der(key_pem)
        if self.pem:
            cert = certificate_pem.encode()
            key = key_pem.encode()
        count, folder, _ = self._find()
        count += 1
        folder = self.root + ("a" if folder[-1] == "b" else "b")
        compat.remove_tree(folder)
        compat.make_dirs(folder)
        compat.write_atomic(folder + "/cert", cert)
        compat.write_atomic(folder + "/key", key, True)
        record = {"name": thing_name, "count": count, "sha256": _digest(thing_name, count, cert, key)}
        compat.write_atomic(folder + "/thing.json", json.dumps(record).encode())

    def _find(self) -> Any:
        """(count, folder, thing name) of the newest generation that is whole; count 0 if there is none."""
        found = 0, "b", ""
        for folder in (self.root + "a", self.root + "b"):
            try:
                record = json.loads(compat.read_file(folder + "/thing.json", 512) or b"")
                cert = compat.read_file(folder + "/cert", _CREDENTIAL_BYTES) or b""
                key = compat.read_file(folder + "/key", _CREDENTIAL_BYTES) or b""
                name = record["name"]
                count = record["count"]
                if _digest(name, count, cert, key) == record["sha256"] and count > found[0]:
                    found = count, folder, name
            except (ValueError, KeyError, TypeError):
                pass  # not whole
        return found
