# SPDX-License-Identifier: Apache-2.0
"""A model of RAUC 1.8 and of the boot loader for linux_image.py, in files whose writes can be recorded.

The boot loader is U-Boot with RAUC's own script (rauc/meta-rauc-community, boot.cmd): each boot costs an attempt, and
mark-good gives them back. tests/device/test_cuts_image.py holds all this against the real RAUC.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

devices: Any = importlib.import_module("hil.cuts.board.device")
files: Any = importlib.import_module("hil.cuts.board.content")

BLOCK = 4096
ATTEMPTS = 3  # of a slot, as RAUC gives them to U-Boot
KEY = b"release"
SLOTS = {"A": "rootfs.0", "B": "rootfs.1"}


def content(version: str, size: int) -> bytes:
    """Of a slot: what boots is what its first line says."""
    head = f"{version}\n".encode()
    return head + random.Random(version).randbytes(size - len(head))


def bundle(version: str, image: bytes, compatible: str = "Gateway", key: bytes = KEY) -> bytes:
    """A line of facts, the image, a signature over both."""
    signed = json.dumps([compatible, version]).encode() + b"\n" + image
    signature: bytes = devices.sign(key, hashlib.sha256(signed).digest())
    return signed + signature


def durable(path: str, data: bytes, folder: bool = True) -> None:
    """Replace a file. folder: make the name durable, too."""
    with open(path + ".tmp", "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".tmp", path)
    if folder:
        number = os.open(os.path.dirname(path), os.O_RDONLY)
        os.fsync(number)
        os.close(number)


class Rauc:
    """RAUC 1.8 with its service, two slots and a boot loader that counts attempts.

    Files in `folder`: A and B, the slots; env, the boot loader's variables, replaced at once and durably, as a
    redundant environment is; status, RAUC's own, whose name is not synced, as GLib leaves it. An installation marks
    the other slot bad, writes it, syncs it, saves the status, and only then makes it the primary one. Until it is saved
    the status tells of what the slot held before.
    """

    def __init__(self, folder: str, booted: str) -> None:
        self.folder = folder
        self.booted = booted

    def make(self, image: bytes, size: int) -> None:
        """As the factory does: one slot is empty."""
        write = files.write
        write(self.folder + "/A", image.ljust(size, b"\0"))
        write(self.folder + "/B", bytes(size))
        write(self.folder + "/status", b"{}")
        env = {"order": "A", "left": {"A": ATTEMPTS, "B": 0}, "good": "A"}
        write(self.folder + "/env", json.dumps(env).encode())

    def read(self, name: str) -> bytes:
        return Path(self.folder, name).read_bytes()

    def env(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read("env"))
        return found

    def store(self, env: dict[str, Any]) -> None:
        durable(self.folder + "/env", json.dumps(env).encode())

    def primary(self) -> str:
        """The slot that is booted next, "" if none is."""
        env = self.env()
        return next((slot for slot in env["order"] if env["left"][slot]), "")

    def choose(self) -> str:
        """What the boot loader does at power-on. Returns the slot, "" if none is left."""
        env = self.env()
        for slot in env["order"]:
            if env["left"][slot]:
                env["left"][slot] -= 1
                self.store(env)
                return str(slot)
        return ""

    def mark(self, state: str, slot: str) -> None:
        env = self.env()
        good = env["good"].replace(slot, "")
        if state == "active":
            env["order"] = slot + env["order"].replace(slot, "")
        elif state == "bad":
            env["order"] = env["order"].replace(slot, "")
        env["left"][slot] = 0 if state == "bad" else ATTEMPTS
        env["good"] = good + slot if state == "good" else good
        self.store(env)

    def check(self, data: bytes) -> tuple[str, str, bytes]:
        """(compatible, version, image) of a bundle. Raises ValueError for one that is not signed, or not whole."""
        signed = data[:-32]
        if data[-32:] != devices.sign(KEY, hashlib.sha256(signed).digest()):
            raise ValueError("signature verification failed: Verify error:bad signature")
        head, _, image = signed.partition(b"\n")
        return *json.loads(head), image

    def install(self, data: bytes) -> Iterator[int]:
        """Percents. Raises ValueError."""
        compatible, version, image = self.check(data)
        slot = "B" if self.booted == "A" else "A"
        yield 20
        self.mark("bad", slot)
        yield 40
        with open(f"{self.folder}/{slot}", "r+b") as file:
            for at in range(0, len(image), BLOCK):
                file.write(image[at : at + BLOCK])
            yield 60
            file.flush()
            os.fsync(file.fileno())
        status = json.loads(self.read("status"))
        count = status.get(SLOTS[slot], {}).get("installed", {}).get("count", 0)
        status[SLOTS[slot]] = {
            "installed": {"timestamp": "2026-01-01T00:00:00Z", "count": count + 1},
            "bundle": {"compatible": compatible, "version": version},
            "checksum": {"sha256": hashlib.sha256(image).hexdigest(), "size": len(image)},
            "status": "ok",
        }
        durable(self.folder + "/status", json.dumps(status).encode(), False)
        yield 80
        self.mark("active", slot)
        yield 100

    def answer(self, words: list[str]) -> str:
        """What the command prints. Raises ValueError with its error."""
        if words[0] == "info":
            compatible, version, image = self.check(Path(words[-1]).read_bytes())
            images = [{"rootfs": {"checksum": hashlib.sha256(image).hexdigest(), "size": len(image)}}]
            return json.dumps({"compatible": compatible, "version": version, "images": images})
        if words[1].startswith("mark-"):
            by_name = {name: slot for slot, name in SLOTS.items()}
            other = "B" if self.booted == "A" else "A"
            slot = {"booted": self.booted, "other": other, **by_name}[words[2]]
            self.mark(words[1][5:], slot)
            return f"rauc status: marked slot {SLOTS[slot]} as {words[1][5:]}\n"
        env = self.env()
        status = json.loads(self.read("status"))
        slots = []
        for slot, name in SLOTS.items():
            good = slot in env["order"] and env["left"][slot]
            told = {
                "class": "rootfs",
                "state": "booted" if slot == self.booted else "inactive",
                "boot_status": "good" if good else "bad",
                "slot_status": status.get(name, {}),
            }
            slots.append({name: told})
        return json.dumps({"compatible": "Gateway", "boot_primary": SLOTS.get(self.primary()), "slots": slots})


class Installation:
    """The process `rauc install`, and its stdout. The service does the work, whatever becomes of the process."""

    returncode: int | None = None

    def __init__(self, go_on: Callable[[], int | None]) -> None:
        """go_on: has the service do its next thing; percents, None when it is done. Raises ValueError."""
        self._go_on = go_on
        self.stdout = self

    def __aiter__(self) -> Installation:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        if self.returncode is not None:
            raise StopAsyncIteration
        try:
            percent = self._go_on()
        except ValueError as error:
            self.returncode = 1
            return f"LastError: {error}\n".encode()
        if percent is None:
            self.returncode = 0
            raise StopAsyncIteration
        return b"%3d%% Installing\n" % percent

    def at_eof(self) -> bool:
        return self.returncode is not None

    def kill(self) -> None:
        """The service goes on without."""

    async def wait(self) -> int:
        return self.returncode or 0
