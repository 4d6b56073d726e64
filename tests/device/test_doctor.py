# SPDX-License-Identifier: Apache-2.0
"""`edgeagent doctor` names the broken thing, in one line: each is broken here for real."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import ssl
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeagent import config
from edgeagent.ports.linux import doctor
from edgefleet.pki import Authority, certificate_id
from edgefleet.registry import certificates, policies
from tests.device.ground import POLICY, Ground, ground
from tests.device.test_cli import command, write_config
from tests.support import ROOT

DAY = datetime.timedelta(days=1)


def examine(members: dict[str, Any]) -> tuple[str, list[str]]:
    """(problem, steps that were well)."""
    steps: list[str] = []
    return asyncio.run(doctor.examine(config.parse(members), steps.append)), steps


def members_of(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    return {
        name: str(path.parent / value) if name in ("ca", "certificate", "key") else value
        for name, value in data.items()
    }


def at_site(folder: Path, scenario: Callable[[Ground, dict[str, Any]], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with ground(folder / "site") as site:
            await asyncio.wait_for(scenario(site, site.enroll("pump", folder / "pump")), 60)

    asyncio.run(main())


async def problem(members: dict[str, Any]) -> str:
    return await doctor.examine(config.parse(members), lambda step: None)


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    members = members_of(write_config(tmp_path, endpoint="does-not-exist.invalid"))
    assert examine(members)[0].startswith("DNS: does-not-exist.invalid cannot be resolved: ")


def test_a_port_that_is_closed(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert examine(members_of(write_config(tmp_path, port=port)))[0].startswith(f"TCP: 127.0.0.1 port {port}: ")


def test_a_port_where_nobody_speaks_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_CONNECT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found, steps = examine(members_of(write_config(tmp_path, port=port)))
    assert found == f"TLS: port {port} is open, but there is no handshake within 1 s"
    assert steps[-1] == f"TCP: port {port} is open"


def test_a_clock_that_was_never_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.time, "time", lambda: 86400.0)
    assert examine(members_of(write_config(tmp_path)))[0].startswith("clock: is at ")


@pytest.mark.parametrize(("name", "word"), [("ca", "ca"), ("certificate", "certificate"), ("key", "certificate")])
def test_a_credential_file_that_is_none(name: str, word: str, tmp_path: Path) -> None:
    members = members_of(write_config(tmp_path))
    Path(members[name]).write_text("rubbish")
    found = examine(members)[0]
    assert found.startswith(word + ": ")
    assert members[name] in found


def server_context(folder: Path, host: str, start: datetime.timedelta, end: datetime.timedelta) -> ssl.SSLContext:
    """Of a server whose certificate the CA of write_config signed, valid from now + start to now + end."""
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((folder / "pki" / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "s.pem").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "s.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "s.pem", folder / "s.key")
    return context


@pytest.mark.parametrize(
    ("host", "start", "end", "said"),
    [
        ("localhost", DAY, 2 * DAY, "clock: the server's certificate is not valid yet at "),
        ("localhost", -2 * DAY, -DAY, "TLS: the server's certificate has expired, or the clock is ahead: "),
        ("elsewhere", -DAY, DAY, "TLS: the server's certificate is not for localhost (server_hostname)"),
    ],
)
def test_a_server_certificate_that_does_not_hold(
    host: str, start: datetime.timedelta, end: datetime.timedelta, said: str, tmp_path: Path
) -> None:
    path = write_config(tmp_path, endpoint="localhost")
    context = server_context(tmp_path, host, start, end)

    async def scenario() -> str:
        server = await asyncio.start_server(lambda reader, writer: None, "localhost", 0, ssl=context)
        async with server:
            return await problem({**members_of(path), "port": server.sockets[0].getsockname()[1]})

    assert asyncio.run(scenario()).startswith(said)


def test_a_server_of_another_ca(tmp_path: Path) -> None:
    async def scenario(site: Ground, members: dict[str, Any]) -> None:
        strange = Authority.load_or_create(tmp_path / "strange")
        (tmp_path / "strange.pem").write_text(strange.ca_pem)
        members["ca"] = str(tmp_path / "strange.pem")
        assert await problem(members) == f"ca: {members['ca']} did not sign the server's certificate"

    at_site(tmp_path, scenario)


def test_a_certificate_that_is_not_registered_or_not_active(tmp_path: Path) -> None:
    async def scenario(site: Ground, members: dict[str, Any]) -> None:
        pem = (tmp_path / "pump" / "cert.pem").read_text()
        site.commit(lambda tx: certificates.set_status(tx, certificate_id(pem), "INACTIVE"))
        assert (await problem(members)).startswith(("certificate: ", "policy: iot:Connect "))
        certificate, key = site.authority.issue_device()
        (tmp_path / "pump" / "cert.pem").write_text(certificate)
        (tmp_path / "pump" / "key.pem").write_text(key or "")
        assert (await problem(members)).startswith(("certificate: ", "policy: iot:Connect "))

    at_site(tmp_path, scenario)


def reduce_policy(site: Ground, action: str) -> None:
    """The policy without one action."""

    def work(tx: Any) -> None:
        document = json.loads(policies.require(tx, POLICY)["policyDocument"])
        kept = []
        for statement in document["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            left = [one for one in actions if one != action]
            if left:
                kept.append({**statement, "Action": left})
        policies.create_version(tx, POLICY, json.dumps({**document, "Statement": kept}), True)

    site.commit(work)
    site.authorizer.forget()


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("iot:Connect", "policy: iot:Connect is not allowed for client/pump"),
        ("iot:Subscribe", "policy: subscribing to $aws/things/pump/jobs/start-next/+ ended the connection: iot:Sub"),
        ("iot:Publish", "policy: publishing to $aws/things/pump/jobs/$next/get ended the connection: iot:Pub"),
        ("iot:Receive", "topic: $aws/things/pump/jobs/$next/get: no answer within"),
    ],
)
def test_an_action_that_the_policy_lacks(
    action: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_ANSWER_S", 1)

    async def scenario(site: Ground, members: dict[str, Any]) -> None:
        reduce_policy(site, action)
        found = await problem(members)
        assert found.startswith(said), found

    at_site(tmp_path, scenario)


def test_a_device_that_is_well(tmp_path: Path) -> None:
    async def scenario(site: Ground, members: dict[str, Any]) -> None:
        path = tmp_path / "agent.json"
        path.write_text(json.dumps(members))

        def run(*options: str) -> subprocess.CompletedProcess[str]:
            line = command("doctor", "--config", str(path), *options)
            return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

        result = await asyncio.to_thread(run)
        assert result.returncode == 0, result.stdout
        assert [line[:6] for line in result.stdout.splitlines()] == ["ok    "] * 8
        assert result.stdout.splitlines()[-1] == "ok    policy: jobs and shadow answer"
        found = json.loads((await asyncio.to_thread(run, "--json")).stdout)
        assert found["problem"] is None
        assert len(found["steps"]) == 8

    at_site(tmp_path, scenario)


def test_the_command_says_what_is_wrong_in_one_line_with_status_1(tmp_path: Path) -> None:
    path = write_config(tmp_path, endpoint="does-not-exist.invalid")
    line = command("doctor", "--config", str(path))
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.splitlines()[-1].startswith("FAIL  DNS: ")
