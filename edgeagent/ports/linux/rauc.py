# SPDX-License-Identifier: Apache-2.0
"""RAUC by its command line: what is installed and booted, whether a bundle is genuine, installing, marking slots.

The command and not D-Bus: Python's library has no D-Bus, every RAUC since 1.0 has these commands and their JSON, and
they speak to the service themselves. What D-Bus could tell beyond it, progress and the last error, `rauc install`
prints. A `rauc install` that is killed does not stop the service, which goes on installing: ask `idle` what came of it.
The service does one thing at a time and answers nothing meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from edgeagent.errors import JobFailed, UpdateError

ANSWER_S = 60.0
INFO_S = 900.0  # a bundle in the format "plain" is read whole
IDLE_S = 3600.0  # until the service must have ended what it does
_POLL_S = 1.0
_LINE = 65536
_PERCENT = re.compile(rb"\s*(\d{1,3})% ")


def _words(text: str) -> str:
    """The last line that is no log line of GLib: why RAUC refused."""
    lines = [line for line in text.splitlines() if line and "rauc-Message" not in line and "rauc-WARNING" not in line]
    return lines[-1][:200] if lines else "no reason given"


class System:
    """What `rauc status` tells. booted, primary: names of slots, such as "rootfs.0"."""

    def __init__(self, data: Any) -> None:
        """data: of `rauc status --detailed --output-format=json`. Raises UpdateError."""
        try:
            if data["compatible"] is None:  # what RAUC 1.8 answers, with status 0, while its service begins
                raise UpdateError("rauc", "its service is not ready")
            self.compatible = str(data["compatible"])
            self.slots: dict[str, Any] = {name: slot for entry in data["slots"] for name, slot in entry.items()}
            self.primary = str(data["boot_primary"])
            self.booted = next(name for name, slot in self.slots.items() if slot["state"] == "booted")
        except (LookupError, TypeError, AttributeError):
            raise UpdateError("rauc", "status has another form than expected") from None
        except StopIteration:
            raise UpdateError("rauc", "does not know which slot is booted") from None

    def version(self, slot: str) -> str | None:
        """Of the bundle that was installed into a slot; None: of the factory, or RAUC keeps no status of slots."""
        held = self.slots[slot].get("slot_status", {}).get("bundle", {}).get("version")
        return str(held) if held else None

    def written(self, slot: str) -> list[Any]:
        """What tells one installation into a slot from any other: [result, SHA-256, time, count].

        All None: of the factory, or RAUC keeps no status of slots.
        """
        status = self.slots[slot].get("slot_status", {})
        when = status.get("installed", {})
        digest = status.get("checksum", {}).get("sha256")
        return [status.get("status"), digest, when.get("timestamp"), when.get("count")]

    def holds(self, slot: str, bundle: Bundle) -> bool:
        """True if a slot was completely written from an image of `bundle`."""
        known = self.slots.get(slot, {})
        status = known.get("slot_status", {})
        wanted = bundle.images.get(known.get("class", ""))
        return bool(
            wanted
            and status.get("status") == "ok"
            and status.get("checksum", {}).get("sha256") == wanted
            and status.get("bundle", {}).get("version") == bundle.version
        )

    def state(self, slot: str) -> str:
        """ "good" or "bad", as the boot loader has it."""
        return str(self.slots.get(slot, {}).get("boot_status"))


class Bundle:
    """compatible, version ("" if it has none); images: slot class -> SHA-256 as hex."""

    def __init__(self, compatible: str, version: str, images: dict[str, str]) -> None:
        self.compatible, self.version, self.images = compatible, version, images


class Rauc:
    """All methods raise UpdateError "rauc" if RAUC is not there or does not answer; its own words follow."""

    def __init__(self, program: str, reboot: list[str]) -> None:
        """program: path of rauc. reboot: command that restarts the machine."""
        self._program, self._reboot = program, reboot

    def _call(self, seconds: float, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603 - the operator's own program
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**os.environ, "LC_ALL": "C"},
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UpdateError("rauc", str(error)[:200]) from None

    async def info(self, path: str) -> Bundle:
        """Of a bundle whose signature holds against this system's keyring.

        Raises UpdateError "no-trust", "signature" or "bundle".
        """
        done = await asyncio.to_thread(self._call, INFO_S, "info", "--output-format=json", path)
        if done.returncode:
            words = _words(done.stderr)
            code = "signature" if "verification failed" in words else "bundle"
            raise UpdateError("no-trust" if words.startswith("No keyring") else code, words)
        try:
            data = json.loads(done.stdout)
            images = {name: image["checksum"] for entry in data["images"] for name, image in entry.items()}
            return Bundle(data["compatible"], data["version"] or "", images)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UpdateError("rauc", "info has another form than expected") from None

    async def status(self) -> System:
        """Raises UpdateError "busy" while the service installs."""
        done = await asyncio.to_thread(self._call, ANSWER_S, "status", "--detailed", "--output-format=json")
        if done.returncode:
            words = _words(done.stderr)
            raise UpdateError("busy" if "already processing" in words else "rauc", words)
        try:
            return System(json.loads(done.stdout))
        except ValueError:
            raise UpdateError("rauc", "status has another form than expected") from None

    async def idle(self, seconds: float = IDLE_S) -> System:
        """`status`, as soon as the service has ended what it does. It may also be starting: that gets ANSWER_S."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            try:
                return await self.status()
            except UpdateError as error:
                if loop.time() - start > (seconds if error.code == "busy" else min(seconds, ANSWER_S)):
                    raise
            await asyncio.sleep(_POLL_S)

    async def install(self, path: str, tick: Callable[[int], Awaitable[Any]]) -> None:
        """Write a bundle into the slots that are not booted. tick: awaited with percents.

        Raises UpdateError "install".
        """
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                "install",
                path,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
                limit=_LINE,
            )
        except OSError as error:
            raise UpdateError("rauc", str(error)) from None
        assert process.stdout
        why = ""
        try:
            async for line in process.stdout:
                found = _PERCENT.match(line)
                if found:
                    await tick(int(found[1]))
                elif line.startswith(b"LastError: "):
                    why = line[11:].decode("utf-8", "replace").strip()
                elif not why and line.startswith((b"Failed ", b"D-Bus error", b"Error ")):
                    why = line.decode("utf-8", "replace").strip()
        except ValueError:
            why = "a line of its output is longer than %d bytes" % _LINE
        finally:
            if process.returncode is None and process.stdout.at_eof() is False:
                process.kill()  # only the one who asked: the service goes on
            await process.wait()
        if process.returncode:
            raise UpdateError("install", why[:200] or "rauc ended with %d" % process.returncode)

    def mark(self, state: str, slot: str) -> None:
        """state: "good", "bad" or "active". slot: its name, "booted" or "other". Blocks for as long as RAUC takes."""
        done = self._call(ANSWER_S / 2, "status", "mark-" + state, slot)
        if done.returncode:
            raise UpdateError("rauc", "mark-%s %s: %s" % (state, slot, _words(done.stderr)))

    async def restart(self, seconds: float) -> NoReturn:
        """Restart the machine, which ends this process. Raises JobFailed if it does not within so many seconds."""
        try:
            done = await asyncio.to_thread(
                subprocess.run,
                self._reboot,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise JobFailed("the machine did not restart: %s" % error) from None
        if done.returncode:
            words = done.stderr.decode("utf-8", "replace").strip()[-200:]
            raise JobFailed("the machine did not restart: %s" % (words or "status %d" % done.returncode))
        await asyncio.sleep(seconds)
        raise JobFailed("the machine did not restart within %g s" % seconds)
