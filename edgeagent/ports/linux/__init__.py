# SPDX-License-Identifier: Apache-2.0
"""CPython on Linux: Raspberry Pi, gateways, servers. Restarting is the service manager's part.

Watchdog: systemd's (NOTIFY_SOCKET, WATCHDOG_USEC) and the one of `edgeagent run --supervise`, a pipe whose number is in
EDGEAGENT_WATCHDOG_FD and which gets one byte a feed. Both are fed if both are there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import socket
import ssl
import sys
import uuid
from collections.abc import Callable
from threading import Timer
from typing import Any, NoReturn

from edgeagent import compat, space
from edgeagent.errors import TransportError

EXIT_RESTART = 75  # EX_TEMPFAIL of sysexits.h: "try again"
EXIT_CONFIG = 78  # EX_CONFIG: "something was found in an unconfigured or misconfigured state"; a restart mends nothing
_STATE_DIR = "/var/lib/edgeagent"
_KERNEL_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def _text(path: str) -> str:
    data = compat.read_file(path, 4096)
    if data is None:
        return ""
    return data.decode("utf-8", "replace").strip().strip("\0")


def _proc_text(path: str) -> str:
    """Files of /proc report size 0 and can be read whole."""
    try:
        with open(path, "rb") as f:
            return f.read(65536).decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def _kilobytes(path: str, field: str) -> int | None:
    for line in _proc_text(path).splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


class LinuxWatchdog:
    """Feeds whatever watches this process."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        if self._address and os.environ.get("WATCHDOG_USEC"):
            if self._address[0] == "@":
                self._address = "\0" + self._address[1:]  # abstract name, sd_notify(3)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        number = os.environ.get("EDGEAGENT_WATCHDOG_FD", "")
        self._pipe: int | None = None
        if number.isdigit():
            try:
                os.set_blocking(int(number), False)
                self._pipe = int(number)
            except OSError:
                pass  # a stale variable: nobody is at the other end

    def feed(self) -> None:
        """Say that this process is alive. A watcher that has gone, or a full pipe, is no reason to fail."""
        try:
            if self._socket is not None:
                self._socket.sendto(b"WATCHDOG=1", self._address)
        except OSError:
            pass
        try:
            if self._pipe is not None:
                os.write(self._pipe, b".")
        except OSError:
            pass


class LinuxPort:
    """See ports/base.py."""

    name = "linux"
    pem = True
    _process = ""
    _causes: dict[str, str] = {}  # by state folder: every port object of a process says the same

    def __init__(self, config: Any = None) -> None:
        self.state_dir = str((config and config.state_dir) or _STATE_DIR)
        self.slots_dir = str((config and config.slots_dir) or self.state_dir + "/slots")
        self._metrics: Any = None

    def facts(self) -> dict[str, Any]:
        machine = platform.machine() or "unknown"
        facts = {
            "board": _proc_text("/proc/device-tree/model") or "LINUX_" + machine.upper(),
            "chip": machine,
            "runtime": "cpython " + platform.python_version(),
            "port": self.name,
        }
        serial = _proc_text("/proc/device-tree/serial-number")
        machine_id = _text("/etc/machine-id")
        if not serial and machine_id:
            # machine-id(5): to be kept to the machine, so others get a hash of it that serves nothing else.
            serial = hashlib.sha256(("edgeagent " + machine_id).encode()).hexdigest()[:32]
        if serial:
            facts["serial"] = serial
        return facts

    def memory(self) -> dict[str, int]:
        found = {}
        for name, path, field in (
            ("free", "/proc/meminfo", "MemAvailable"),
            ("used", "/proc/self/status", "VmRSS"),
        ):
            size = _kilobytes(path, field)
            if size is not None:
                found[name] = size
        try:
            found["flash_free"] = space.free(self.state_dir)
        except OSError:
            pass  # the state folder does not exist yet
        return found

    def metrics(self) -> dict[str, Any]:
        """Device Defender's standard metrics; see metrics.py."""
        if self._metrics is None:
            from edgeagent.ports.linux.metrics import Metrics

            self._metrics = Metrics()
        return self._metrics.read()  # type: ignore[no-any-return]

    def boot_id(self) -> str:
        """Kernel boot id, process id and its start in clock ticks: a process id alone comes back after a while."""
        if not LinuxPort._process:
            stat = _proc_text("/proc/self/stat")
            fields = stat[stat.rfind(")") + 2 :].split()  # proc(5): the name may hold spaces
            start = fields[19] if len(fields) > 19 else uuid.uuid4().hex
            LinuxPort._process = "%s-%d-%s" % (_proc_text(_KERNEL_BOOT_ID)[:8] or "host", os.getpid(), start)
        return LinuxPort._process

    def reset_cause(self) -> str:
        """ "power-on" if the host has booted since the last run with this state folder; "killed" if that run ended
        without `ended`: by a watchdog, for lack of memory, by a defect in native code; else "soft".
        """
        cause = self._causes.get(self.state_dir)
        if not cause:
            kernel = _proc_text(_KERNEL_BOOT_ID)
            path = self.state_dir + "/kernel-boot"
            cause = "power-on"
            if kernel and _text(path) == kernel:
                cause = "killed" if _text(self._running) == kernel else "soft"
            try:
                compat.make_dirs(self.state_dir)
                compat.write_atomic(path, kernel.encode())
            except OSError:
                cause = "unknown"
            self._causes[self.state_dir] = cause
        return cause

    @property
    def _running(self) -> str:
        return self.state_dir + "/running"

    def began(self) -> None:
        """Note that an application runs. The note need not survive a loss of power, which is seen without it."""
        try:
            with open(self._running, "w", encoding="ascii") as f:
                f.write(_proc_text(_KERNEL_BOOT_ID))
        except OSError:
            pass  # then nobody can tell whether it was killed

    def ended(self) -> None:
        """It has ended, and why is known."""
        try:
            os.unlink(self._running)
        except OSError:
            pass

    def limit(self, seconds: int, over: Callable[[], Any]) -> None:
        """Call over() after `seconds` whatever runs then; end the process with 75 if it returns true or fails."""

        def end() -> None:
            late = True
            try:
                late = over()
            finally:
                if late:
                    self.ended()
                    os._exit(EXIT_RESTART)

        timer = Timer(seconds, end)
        timer.daemon = True
        timer.start()

    def reset(self) -> NoReturn:
        """End the process at once, past every `except` and task, with status 75."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass  # closed or a broken pipe; the restart matters more
        self.ended()
        os._exit(EXIT_RESTART)

    def watchdog(self, seconds: int) -> LinuxWatchdog:
        """The watchers of this process; how long they wait is theirs to say, so `seconds` is not used."""
        return LinuxWatchdog()

    async def open_stream(self, host: str, port: int, server_hostname: str, ca: str, cert: str, key: str) -> Any:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED, host name checked
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cafile=ca)
            if cert:
                context.load_cert_chain(cert, key)
        except (OSError, ValueError) as error:
            raise TransportError("credentials %s, %s, %s: %s" % (ca, cert, key, compat.exc_text(error))) from None
        try:
            return await asyncio.open_connection(host, port, ssl=context, server_hostname=server_hostname)
        except (OSError, ValueError, UnicodeError) as error:
            raise TransportError("connect to %s:%d: %s" % (host, port, compat.exc_text(error))) from None

    def make_csr(self, common_name: str) -> tuple[bytes, str] | None:
        """With OpenSSL, if the extra edgeagent[linux] is installed."""
        try:
            from cryptography import x509
            from cryptography.hazmat.primitives import hashes, serialization
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            return None
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return secret, request.public_bytes(serialization.Encoding.PEM).decode()
