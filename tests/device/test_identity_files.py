# SPDX-License-Identifier: Apache-2.0
"""The stored identity on a POSIX file system: PEM as it came, the key for its owner only."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from edgeagent.identity import Identity, pem_to_der
from edgefleet import pki


def test_pem_is_kept_as_it_came_and_python_can_use_it(tmp_path: Path) -> None:
    authority = pki.Authority.load_or_create(tmp_path / "ca")
    for key_type in ("ec", "rsa2048"):
        certificate, key = authority.issue_device(key_type=key_type)
        assert key is not None
        identity = Identity(str(tmp_path / "state"), pem=True)
        identity.store("thing-1", certificate, key)
        found = identity.load()
        assert found is not None
        name, certificate_path, key_path = found
        assert (name, Path(certificate_path).read_text(), Path(key_path).read_text()) == ("thing-1", certificate, key)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate_path, key_path)


def test_only_the_owner_reads_the_key(tmp_path: Path) -> None:
    certificate, key = pki.Authority.load_or_create(tmp_path / "ca").issue_device()
    assert key is not None
    identity = Identity(str(tmp_path / "state"), pem=True)
    identity.store("thing-1", certificate, key)
    found = identity.load()
    assert found is not None
    assert stat.S_IMODE(Path(found[2]).stat().st_mode) == 0o600


def test_der_is_what_the_standard_library_makes_of_it(tmp_path: Path) -> None:
    certificate, _ = pki.Authority.load_or_create(tmp_path / "ca").issue_device()
    assert pem_to_der(certificate) == ssl.PEM_cert_to_DER_cert(certificate)
