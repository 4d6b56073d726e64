# SPDX-License-Identifier: Apache-2.0
"""A Linux machine of two slots that are files: the real RAUC on a message bus of its own, a boot loader of ours.

What boots is what the slot holds: a version in its first line. The boot loader counts attempts like U-Boot's: a new
primary slot has three, mark-good gives it as many as it wants, and a slot without any is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edgeagent.ota import trial
from hil.virtual_board import die_with_parent
from tests.device.ground import Ground
from tests.support import ROOT

THING = "gateway"
SLOT_BYTES = 4 << 20
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={folder}/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
</policy></busconfig>
"""
SYSTEM = """[system]
compatible=Gateway
bootloader=custom
statusfile={folder}/rauc.status
mountprefix={folder}/mnt
{more}
[handlers]
bootloader-custom-backend={folder}/loader.sh
pre-install={folder}/hold.sh
[keyring]
path={folder}/release.ca.pem
[slot.rootfs.0]
device={folder}/slot.A
type=raw
bootname=A
[slot.rootfs.1]
device={folder}/slot.B
type=raw
bootname=B
"""
LOADER = """#!/bin/sh
cd {folder}/loader
echo "$@" >> log
case "$1" in
get-primary) for name in $(cat order); do [ $(cat left.$name) -gt 0 ] && echo $name && exit; done; exit 1 ;;
set-primary) [ $2 = A ] && echo A B > order || echo B A > order; echo 3 > left.$2 ;;
get-state) [ $(cat left.$2) -gt 0 ] && echo good || echo bad ;;
set-state) [ $3 = good ] && echo 99 > left.$2 || echo 0 > left.$2 ;;
esac
"""
HOLD = """#!/bin/sh
touch {folder}/installing
while [ -e {folder}/hold ]; do sleep 0.05; done
"""


def signer(folder: Path, name: str) -> None:
    """NAME.ca.pem, and NAME.pem and NAME.key of a certificate that it has issued."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in "12"]
    ca = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name + " CA")])
    leaf = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    for subject, key, path in ((ca, keys[0], f"{name}.ca.pem"), (leaf, keys[1], f"{name}.pem")):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=subject == ca, path_length=None), critical=True)
            .sign(keys[0], hashes.SHA256())
        )
        (folder / path).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(keys[1].private_bytes(*form))


class Files(http.server.ThreadingHTTPServer):
    """Serves the files of a folder by ranges over TLS. asked: first bytes of the requests. served: bytes of bodies.
    cut: what asks for this byte of a file loses its connection there, unless it is None.
    """

    daemon_threads = True
    served = 0
    cut: int | None = None

    def __init__(self, folder: Path, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder = folder
        self.asked: list[int] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Files

    def do_GET(self) -> None:
        path = self.server.folder / Path(self.path).name
        if not path.exists():
            self.send_error(404)
            return
        data = path.read_bytes()
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.server.asked.append(first)
        body = data[first : last + 1]
        if self.server.cut is not None:
            body = body[: max(self.server.cut - first, 0)]
        self.server.served += len(body)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("ETag", '"one"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


class Machine:
    """Use: `async with machine(site, folder) as it`. broken: versions that do not boot. deaf: those without network."""

    def __init__(self, site: Ground, folder: Path, more: str = "", environment: Any = None) -> None:
        """more: members of RAUC's [system]. environment: of rauc_program.py."""
        self.site, self.folder = site, folder
        self.broken: set[str] = set()
        self.deaf: set[str] = set()
        self.boots: list[str] = []  # versions
        self.agent: subprocess.Popen[bytes] | None = None
        self._service: subprocess.Popen[bytes] | None = None
        self._cut, self._meanwhile = False, lambda: None
        (folder / "loader").mkdir(parents=True)
        (folder / "mnt").mkdir()
        (folder / "bundles").mkdir()
        for name, text in (("loader.sh", LOADER), ("hold.sh", HOLD), ("system.conf", SYSTEM), ("bus.conf", BUS)):
            (folder / name).write_text(text.replace("{folder}", str(folder)).replace("{more}", more))
            (folder / name).chmod(0o755)
        for name in ("rauc", "reboot"):
            program = f'exec {shutil.which("rauc")} -c {folder}/system.conf "$@"'
            (folder / name).write_text(f"#!/bin/sh\n{program if name == 'rauc' else f'touch {folder}/rebooting'}\n")
            (folder / name).chmod(0o755)
        for name, text in (("order", "A B"), ("left.A", "99"), ("left.B", "0"), ("log", "")):
            (folder / "loader" / name).write_text(text)
        (folder / "busy").touch()
        self.sick()
        for slot in "AB":
            self.write(slot, "1.0.0" if slot == "A" else "nothing")
        signer(folder, "release")
        signer(folder, "other")
        self.config = site.enroll(THING, folder / "thing")
        image = {"rauc": f"{folder}/rauc", "reboot": [f"{folder}/reboot"], "folder": f"{folder}/bundles"}
        self.config.update({"image": image, "confirm_within": 60})
        self.files = Files(folder / "bundles", site.folder / "server.pem", site.folder / "server.key")
        self.environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={folder}/bus", **(environment or {})}
        self._bus = subprocess.Popen(
            ["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork"], preexec_fn=die_with_parent
        )

    def write(self, slot: str, version: str) -> None:
        (self.folder / f"slot.{slot}").write_bytes(f"{version}\n".encode().ljust(SLOT_BYTES, b"\0"))

    def sick(self, *versions: str) -> None:
        (self.folder / "sick").write_text(" ".join(versions))

    def path(self, document: dict[str, Any]) -> Path:
        """The file that a job document of `bundle` asks for."""
        return self.folder / "bundles" / str(document["url"]).rpartition("/")[2]

    def holds(self, slot: str) -> str:
        """The version in a slot."""
        return (self.folder / f"slot.{slot}").read_bytes().partition(b"\n")[0].decode("ascii", "replace")

    def loader(self, name: str) -> str:
        return (self.folder / "loader" / name).read_text().strip()

    def record(self) -> dict[str, Any]:
        return trial.status(str(self.folder / "thing/slots/image"))

    def fetched(self) -> int:
        """Bytes of an unfinished download."""
        return sum(path.stat().st_size for path in self.unfinished())

    def unfinished(self) -> list[Path]:
        """Files of downloads."""
        return list((self.folder / "thing/slots/image/bundle").glob("*"))

    def running(self) -> str:
        return self.boots[-1] if self.boots else ""

    def log(self) -> str:
        return "\n".join((self.folder / name).read_text()[-3000:] for name in ("agent.log", "rauc.log"))

    def bundle(
        self, version: str, compatible: str = "Gateway", by: str = "release", size: int = 65536
    ) -> dict[str, Any]:
        """A signed bundle in the folder `bundles`; the job document that asks for it."""
        content = self.folder / f"content-{uuid.uuid4().hex}"
        content.mkdir()
        head = f"{version}\n".encode()
        (content / "rootfs.img").write_bytes(head + os.urandom(size - len(head)))
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible={compatible}\nversion={version}\n[bundle]\nformat=plain\n"
            "[image.rootfs]\nfilename=rootfs.img\n"
        )
        path = self.folder / "bundles" / f"{version}-{by}-{compatible}.raucb"
        path.unlink(missing_ok=True)
        key = [f"--cert={self.folder}/{by}.pem", f"--key={self.folder}/{by}.key"]
        subprocess.run(["rauc", *key, "bundle", content, path], check=True, capture_output=True)
        url = f"https://localhost:{self.files.server_address[1]}/{path.name}"
        return {"operation": "image", "url": url, "version": version, "size": path.stat().st_size}

    def install(self, path: Path) -> None:
        """As an operator does it at the machine."""
        subprocess.run([self.folder / "rauc", "install", path], env=self.environment, check=True, capture_output=True)

    async def outcome(self, job: str, document: dict[str, Any]) -> tuple[str, dict[str, str]]:
        self.site.job(job, THING, document)
        open_ = ("QUEUED", "IN_PROGRESS")
        await self.until(lambda: self.site.execution(job, THING)[0] not in open_, job)
        return self.site.execution(job, THING)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        try:
            await self.site.until(condition, what)
        except AssertionError:
            raise AssertionError(f"{what}: {self.log()}") from None

    # --- power

    def kill_agent(self) -> None:
        """SIGKILL; whoever supervises it starts it again."""
        assert self.agent
        self.agent.kill()

    def cut(self, meanwhile: Callable[[], Any] = lambda: None) -> None:
        """Power fails, and comes back; `meanwhile` is done in between."""
        self._cut, self._meanwhile = True, meanwhile

    def _choose(self) -> str:
        """What a boot loader does. A slot that does not boot loses its attempts."""
        while True:
            for slot in self.loader("order").split():
                left = int(self.loader(f"left.{slot}"))
                if left:
                    (self.folder / "loader" / f"left.{slot}").write_text(str(left - 1 if left < 99 else left))
                    if self.holds(slot) not in self.broken:
                        return slot
                    break
            else:
                raise AssertionError("no slot boots: the machine is a brick")

    async def run(self) -> None:
        while True:
            slot = self._choose()
            version = self.holds(slot)
            (self.folder / "kernel").write_text(uuid.uuid4().hex)
            (self.folder / "running").write_text(version)
            (self.folder / "rebooting").unlink(missing_ok=True)
            self._cut, self._meanwhile = False, lambda: None
            config = {**self.config, "port": 1} if version in self.deaf else self.config
            (self.folder / "agent.json").write_text(json.dumps(config))
            with (self.folder / "rauc.log").open("ab") as log:
                self._service = subprocess.Popen(  # noqa: ASYNC220
                    [self.folder / "rauc", f"--override-boot-slot={slot}", "service"],
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    preexec_fn=die_with_parent,
                )
            self.boots.append(version)
            try:
                while not self._cut and not (self.folder / "rebooting").exists():
                    if self.agent is None or self.agent.poll() is not None:
                        self._start_agent()
                    await asyncio.sleep(0.02)
            finally:
                self._off()
            self._meanwhile()

    def _start_agent(self) -> None:
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "tests.device.rauc_program", str(self.folder), str(self.folder / "agent.json")],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

    def _off(self) -> None:
        for process in (self.agent, self._service):
            if process:
                process.kill()
                process.wait()
        self.agent = self._service = None
        subprocess.run(["umount", "-q", self.folder / "mnt/bundle"], capture_output=True, check=False)

    def close(self) -> None:
        self._bus.kill()
        self._bus.wait()
        self.files.shutdown()
        self.files.server_close()


@contextlib.asynccontextmanager
async def machine(site: Ground, folder: Path, **options: Any) -> AsyncIterator[Machine]:
    it = Machine(site, folder, **options)
    task = asyncio.create_task(it.run())
    try:
        yield it
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        it.close()
