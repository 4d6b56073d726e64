# SPDX-License-Identifier: Apache-2.0
"""A connection that cannot succeed is explained in one line that names the file, on hosts and on boards."""

from __future__ import annotations

import asyncio
import datetime
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from edgeagent import explain
from edgeagent.identity import pem_to_der
from tests.device.test_agent_claim import at_site, configuration
from tests.device.test_agent_micropython import HEAP, board_files  # noqa: F401 - a fixture
from tests.support import MICROPYTHON

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def certificate(key: Key, start: datetime.datetime = NOW - DAY, end: datetime.datetime = NOW + DAY) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "n" * 64)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def plain(key: Key, pkcs8: bool = False) -> bytes:
    form = serialization.PrivateFormat.PKCS8 if pkcs8 else serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())


EC, OTHER_EC = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
GOOD = certificate(EC)


def problem(folder: Path, ca: bytes = GOOD, cert: bytes = GOOD, key: bytes = plain(EC)) -> str:
    for name, data in (("ca", ca), ("cert", cert), ("key", key)):
        (folder / name).write_bytes(data)
    found = explain.problem(*(str(folder / name) for name in ("ca", "cert", "key")))
    return found.replace(f"{folder}/", "")


@pytest.mark.parametrize("pkcs8", [False, True])
@pytest.mark.parametrize("key", [EC, RSA], ids=["ec", "rsa"])
def test_nothing_is_wrong_with_a_pair(tmp_path: Path, key: Key, pkcs8: bool) -> None:
    assert problem(tmp_path, cert=certificate(key), key=plain(key, pkcs8)) == ""


@pytest.mark.parametrize("pkcs8", [False, True])
@pytest.mark.parametrize(("key", "other"), [(EC, OTHER_EC), (RSA, OTHER_RSA), (EC, RSA), (RSA, EC)])
def test_a_key_of_another_certificate_is_named(tmp_path: Path, key: Key, other: Key, pkcs8: bool) -> None:
    assert problem(tmp_path, cert=certificate(key), key=plain(other, pkcs8)) == "key is not the key of cert"


@pytest.mark.parametrize("name", ["ca", "cert"])
@pytest.mark.parametrize("year", [2049, 2050, 2070])
def test_a_clock_that_is_behind_is_the_first_suspect(tmp_path: Path, name: str, year: int) -> None:
    start = datetime.datetime(year, 5, 1, tzinfo=datetime.UTC)
    found = problem(tmp_path, **{name: certificate(EC, start, start + DAY)})
    assert found == f"the clock says {NOW:%Y%m%d}, {name} is valid from {year}0501: is the clock set?"


@pytest.mark.parametrize("name", ["ca", "cert"])
@pytest.mark.parametrize("year", [1999, 2020])
def test_a_certificate_that_has_ended_is_named(tmp_path: Path, name: str, year: int) -> None:
    end = datetime.datetime(year, 5, 1, tzinfo=datetime.UTC)
    found = problem(tmp_path, **{name: certificate(EC, end - DAY, end)})
    assert found == f"the clock says {NOW:%Y%m%d}, {name} was valid until {year}0501"


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
@pytest.mark.parametrize("data", [b"", b"hello", b"\xff" * 100], ids=["empty", "text", "binary"])
def test_a_file_that_is_nothing_of_the_kind_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    assert problem(tmp_path, **{name: data}).startswith(f"{name}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    problem(tmp_path)
    (tmp_path / "ca").unlink()
    paths = [str(tmp_path / name) for name in ("ca", "cert", "key")]
    assert explain.problem(*paths) == f"{tmp_path}/ca: is missing or too large"


@given(st.integers(0, len(GOOD)), st.binary(max_size=8))
def test_a_damaged_certificate_is_a_value_error_at_most(at: int, data: bytes) -> None:
    for damaged in (GOOD[:at], GOOD[:at] + data + GOOD[at + len(data) :]):
        try:
            explain.look(damaged)
        except ValueError:
            continue


async def first_error(folder: Path, library: Path) -> str:
    """What a board says until its first ERROR line."""
    process = await asyncio.create_subprocess_exec(
        *(MICROPYTHON, "-X", f"heapsize={HEAP}", "main.py"),
        cwd=folder,
        env={"MICROPYPATH": f"{library}:.frozen"},
        stdout=asyncio.subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        text = ""
        deadline = time.monotonic() + 30
        while " ERROR " not in text:
            assert time.monotonic() < deadline, text
            text = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
            assert text, "it ended"
        return text
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("key", "claim-key.der is not the key of claim-cert.der: "),
        ("ca", "ca.der is valid from 20990101: is the clock set?: "),
        ("other-ca", "the server is not trusted: is ca.der its CA, 127.0.0.1 its name?"),
        ("pem", "ca.der is PEM; a board reads DER"),
    ],
)
def test_a_board_says_in_one_line_why_it_cannot_connect(
    tmp_path: Path,
    board_files: Path,  # noqa: F811
    what: str,
    line: str,
) -> None:
    async def scenario(site: Any, ready: Any) -> None:
        config = configuration(ready, "esp-9")
        claim = config["claim"]
        files = {"ca": ready.ca, "claim-cert": claim["certificate"], "claim-key": claim["key"]}
        for name, path in files.items():
            (tmp_path / f"{name}.der").write_bytes(pem_to_der(Path(path).read_bytes()))  # noqa: ASYNC240
        later = datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC)
        if what == "key":
            (tmp_path / "claim-key.der").write_bytes(plain(OTHER_EC))
        elif what == "ca":
            (tmp_path / "ca.der").write_bytes(certificate(EC, later, later + DAY))
        elif what == "other-ca":
            (tmp_path / "ca.der").write_bytes(GOOD)
        else:
            (tmp_path / "ca.der").write_bytes(Path(ready.ca).read_bytes())  # noqa: ASYNC240
        config["ca"], claim["certificate"], claim["key"] = (f"{name}.der" for name in files)
        (tmp_path / "agent.json").write_text(json.dumps(config))
        (tmp_path / "main.py").write_text('from edgeagent import Agent\nAgent.from_file("agent.json").run()\n')
        assert line in await first_error(tmp_path, board_files)

    at_site(tmp_path, scenario)
