# SPDX-License-Identifier: Apache-2.0
"""Who this device is: thing name, certificate, private key, kept so that a power cut leaves the old or the new one.

    state_dir/identity/a, b     cert, key, thing.json     two generations: the newest and the one before

A generation is whole if the hash in thing.json, which is written last, fits it; `count` tells which whole one is newer.
If that does not fit any more (worn flash), the other one is used. Contents are never logged.

A generation may be stored on trial (certificate rotation). Then thing.json has `trial`: the boots that tried it so far,
or the text why it was given up. After _TRIAL_BOOTS boots, or once it was given up, the one before is used again. Each
step is one atomic replacement of thing.json.
"""

import binascii
import hashlib
import json

from edgeagent import compat
from edgeagent.compat import Any, const
from edgeagent.errors import ConfigError

_CREDENTIAL_BYTES = const(8192)
_TRIAL_BOOTS = const(3)


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


def read_credential(path: str) -> bytes:
    """The DER bytes of a credential stored as PEM or DER. Raises ConfigError naming the file."""
    data = compat.read_file(path, _CREDENTIAL_BYTES)
    if not data:
        raise ConfigError(path, "is missing or too large")
    try:
        return data if data[:1] == b"\x30" else pem_to_der(data)
    except ConfigError:
        raise ConfigError(path, "is neither PEM nor DER") from None


def certificate_id(der: bytes) -> str:
    """The service's id of a certificate: SHA-256 of its DER form, lower-case hex."""
    return hashlib.sha256(der).digest().hex()


def known(config: "Any", stored: "tuple[str, str, str] | None") -> "tuple[str, str, str] | None":
    """The identity to use: configured, unless a stored one of the same name has followed it (rotation)."""
    name = config.thing_name
    if name and config.certificate and config.key and (not stored or stored[0] != name):
        return name, config.certificate, config.key
    return stored


class Identity:
    """The stored identity of one device. trial: whether `start` gave one on trial."""

    trial = False

    def __init__(self, state_dir: str, pem: bool) -> None:
        """pem: store credentials as PEM, otherwise as DER (see Port.pem)."""
        self.root = state_dir + "/identity/"
        self.pem = pem

    def load(self) -> "tuple[str, str, str] | None":
        """(thing name, certificate path, key path), or None if there is no usable identity."""
        return self._paths(self._find(True))

    def start(self) -> "tuple[str, str, str] | None":
        """Like `load`, for a device about to connect: counts this boot if the generation is on trial."""
        record = self._find(True)
        if "trial" in record:
            record["trial"] += 1
            try:
                self._keep(record)
            except OSError:
                record = self._find(False)  # a boot that cannot be counted could fail for ever
        self.trial = "trial" in record
        return self._paths(record)

    def store(self, thing_name: str, certificate_pem: str, key_pem: str, trial: bool = False) -> None:
        """Replace the identity. Raises ConfigError if the credentials are no PEM, OSError if the flash fails.

        Whatever it raises, and wherever power fails, `load` gives the old identity or the new one.
        trial: the old one stays until `finish`; otherwise until the change after this.
        """
        cert = pem_to_der(certificate_pem)
        key = pem_to_der(key_pem)
        if self.pem:
            cert = certificate_pem.encode()
            key = key_pem.encode()
        record = self._find(False)
        folder = self.root + ("b" if record.get("folder") == self.root + "a" else "a")
        count = record.get("count", 0) + 1
        compat.remove_tree(folder)
        compat.make_dirs(folder)
        compat.write_atomic(folder + "/cert", cert)
        compat.write_atomic(folder + "/key", key, True)
        record = {"folder": folder, "name": thing_name, "count": count}
        if trial:
            record["trial"] = 0
        self._keep(record)

    def state(self, certificate: str) -> "int | str | None":
        """Of the whole generation with this certificate id: boots on trial so far, or why it was given up, or "" if it
        has no trial or has passed it. None: there is no such generation.
        """
        for record in self._all():
            if certificate_id(read_credential(record["folder"] + "/cert")) == certificate:
                return record.get("trial", "")  # type: ignore[no-any-return]
        return None

    def finish(self, reason: str = "") -> None:
        """End a trial, if there is one: well, or with the reason to go back. Raises OSError if that was not stored."""
        for record in self._all():
            if not isinstance(record.get("trial", ""), str):
                record["trial"] = reason[:240]
                if not reason:
                    record.pop("trial")
                self._keep(record)

    # --- records: thing.json, and `folder` as long as they are in memory

    def _keep(self, record: "dict[str, Any]") -> None:
        record = dict(record)
        record["sha256"] = self._digest(record)
        compat.write_atomic(record.pop("folder") + "/thing.json", json.dumps(record).encode())

    def _digest(self, record: "dict[str, Any]") -> str:
        digest = hashlib.sha256(("%s %d %s" % (record["name"], record["count"], record.get("trial", ""))).encode())
        for name in ("/cert", "/key"):
            digest.update(compat.read_file(record["folder"] + name, _CREDENTIAL_BYTES) or b"")
        return digest.digest().hex()

    def _paths(self, record: "dict[str, Any]") -> "tuple[str, str, str] | None":
        return (record["name"], record["folder"] + "/cert", record["folder"] + "/key") if record else None

    def _find(self, trial: bool) -> "dict[str, Any]":
        """The newest generation that may be used; {} if there is none. trial: also one on trial."""
        found: "dict[str, Any]" = {}
        for record in self._all():
            boots = record.get("trial", 0)
            usable = "trial" not in record or (trial and not isinstance(boots, str) and boots < _TRIAL_BOOTS)
            if usable and record["count"] > found.get("count", 0):
                found = record
        return found

    def _all(self) -> "list[dict[str, Any]]":
        """The records of all whole generations."""
        found = []
        for name in ("a", "b"):
            try:
                record = json.loads(compat.read_file(self.root + name + "/thing.json", 512) or b"")
                record["folder"] = self.root + name
                if self._digest(record) == record["sha256"]:
                    found.append(record)
            except (ValueError, KeyError, TypeError):
                pass  # not whole
        return found
