# SPDX-License-Identifier: Apache-2.0
"""LinuxPort: facts, restart, watchdogs and keys, against the real kernel of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeagent import ports
from edgeagent.ports.linux import LinuxPort
from tests.support import ROOT


@pytest.fixture
def port(tmp_path: Path) -> LinuxPort:
    return LinuxPort(SimpleNamespace(state_dir=str(tmp_path / "state"), slots_dir=None))


def in_a_process(code: str, state: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with `port` defined."""
    head = (
        "from types import SimpleNamespace\n"
        "from edgeagent.ports.linux import LinuxPort\n"
        f"port = LinuxPort(SimpleNamespace(state_dir={str(state)!r}, slots_dir=None))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + code],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_detect_gives_the_linux_port_on_cpython() -> None:
    port = ports.detect()
    assert (port.name, port.pem, port.state_dir) == ("linux", True, "/var/lib/edgeagent")


def test_facts_are_short_plain_texts(port: LinuxPort) -> None:
    facts = port.facts()
    assert set(facts) - {"serial"} == {"board", "chip", "runtime", "port"}
    assert facts["runtime"] == "cpython " + sys.version.split()[0]
    assert all(isinstance(value, str) and 0 < len(value) < 200 for value in facts.values())


def test_memory_is_measured_in_bytes(port: LinuxPort, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    memory = port.memory()
    assert set(memory) == {"free", "used", "flash_free"}
    assert all(value > 1_000_000 for value in memory.values())


def test_the_boot_id_stays_within_a_process_and_differs_between_two(port: LinuxPort, tmp_path: Path) -> None:
    seen = {port.boot_id(), LinuxPort().boot_id()}
    assert len(seen) == 1
    seen.add(in_a_process("print(port.boot_id())", tmp_path).stdout.strip())
    seen.add(in_a_process("print(port.boot_id())", tmp_path).stdout.strip())
    assert len(seen) == 3


def test_the_reset_cause_tells_a_host_boot_from_a_process_restart(tmp_path: Path) -> None:
    ask = "print(port.reset_cause(), port.reset_cause())"
    assert in_a_process(ask, tmp_path).stdout == "power-on power-on\n"
    assert in_a_process(ask, tmp_path).stdout == "soft soft\n"
    (tmp_path / "kernel-boot").write_text("another boot")
    assert in_a_process(ask, tmp_path).stdout == "power-on power-on\n"


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("os.kill(os.getpid(), 9)", "killed"),
        ("os._exit(0)", "killed"),
        ("port.ended()", "soft"),
        ("port.reset()", "soft"),
        ("port.limit(0, lambda: True); time.sleep(20)", "soft"),
    ],
)
def test_the_reset_cause_tells_a_process_that_was_killed_from_one_that_ended(
    end: str, cause: str, tmp_path: Path
) -> None:
    in_a_process("import os, time\nport.reset_cause()\nport.began()\n" + end, tmp_path)
    assert in_a_process("print(port.reset_cause())", tmp_path).stdout == cause + "\n"


def test_a_loss_of_power_is_no_kill(tmp_path: Path) -> None:
    in_a_process("import os\nport.reset_cause()\nport.began()\nos._exit(0)", tmp_path)
    for name in ("running", "kernel-boot"):
        (tmp_path / name).write_text("another boot")
    assert in_a_process("print(port.reset_cause())", tmp_path).stdout == "power-on\n"
    assert in_a_process("print(port.reset_cause())", tmp_path).stdout == "soft\n"


def test_every_port_object_of_a_process_names_the_same_reset_cause(tmp_path: Path) -> None:
    code = "other = LinuxPort(SimpleNamespace(state_dir=port.state_dir, slots_dir=None))\n"
    code += "print(port.reset_cause(), other.reset_cause())"
    assert in_a_process(code, tmp_path).stdout == "power-on power-on\n"


@pytest.mark.parametrize(("over", "status"), [("1 / 0", 75), ("True", 75), ("False", 0)])
def test_a_limit_holds_whatever_the_program_does_and_if_its_question_fails(
    over: str, status: int, tmp_path: Path
) -> None:
    code = f"import time\nport.limit(0.2, lambda: {over})\nend = time.monotonic() + 1\n"
    assert in_a_process(code + "while time.monotonic() < end: pass", tmp_path).returncode == status


def test_reset_ends_the_process_with_75_and_flushes_what_was_printed(tmp_path: Path) -> None:
    code = (
        "try:\n    print('last words')\n    port.reset()\n"
        "except BaseException:\n    print('survived')\nfinally:\n    print('late')"
    )
    result = in_a_process(code, tmp_path)
    assert (result.returncode, result.stdout) == (75, "last words\n")


def test_the_watchdog_of_systemd_is_fed(port: LinuxPort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        port.watchdog(30).feed()
        assert manager.recv(100) == b"WATCHDOG=1"


def test_the_supervisor_gets_a_byte_a_feed(port: LinuxPort, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv("EDGEAGENT_WATCHDOG_FD", str(writer))
    watchdog = port.watchdog(30)
    watchdog.feed()
    watchdog.feed()
    assert os.read(reader, 100) == b".."
    os.close(reader)
    watchdog.feed()  # the supervisor is gone: no reason to fail
    os.close(writer)


def test_a_full_pipe_or_no_watcher_at_all_blocks_nothing(port: LinuxPort, monkeypatch: pytest.MonkeyPatch) -> None:
    port.watchdog(30).feed()
    reader, writer = os.pipe()
    monkeypatch.setenv("EDGEAGENT_WATCHDOG_FD", str(writer))
    watchdog = port.watchdog(30)
    for _ in range(70_000):  # a pipe holds 64 KiB
        watchdog.feed()
    os.close(reader)
    os.close(writer)


def test_a_csr_has_a_p256_key_of_its_own(port: LinuxPort) -> None:
    made = port.make_csr("serial-1")
    assert made is not None
    secret, csr = made
    key = serialization.load_pem_private_key(secret, None)
    request = x509.load_pem_x509_csr(csr.encode())
    assert isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert request.subject.rfc4514_string() == "CN=serial-1"


def test_without_cryptography_the_csr_is_left_to_the_agent(port: LinuxPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert port.make_csr("x") is None
