# SPDX-License-Identifier: Apache-2.0
"""MicroPython: the unix port as it is, and what board ports share with it.

On the unix port this is a virtual board if there is a fake `machine` that can reset, else a plain process, which
restarts by exiting with status 75; whoever started it starts it again.

Name resolution blocks the whole board (MicroPython has no other), typically for milliseconds, at worst for the
resolver's own time-out: arm the watchdog with room for it.
"""

import asyncio
import gc
import os
import sys

import machine

from edgeagent import clock, compat
from edgeagent.compat import Any, const
from edgeagent.errors import TransportError

_CREDENTIAL_BYTES = const(8192)
_BOOTS = const(8)  # whose reset causes are kept


def _credential(path: str) -> bytes:
    data = compat.read_file(path, _CREDENTIAL_BYTES)
    if not data:
        raise TransportError(path + " is missing or too large")
    return data


def limit(seconds: int, over: Any) -> None:
    """After `seconds` call over() between two bytecodes of whatever runs then; restart if it returns true or fails.

    This holds even for a program that feeds the watchdog and does nothing else.
    """

    def end(_: Any) -> None:
        try:
            late = over()
        except Exception:
            late = True
        if late:
            machine.reset()

    try:
        timer = machine.Timer(-1)
    except ValueError:
        timer = machine.Timer(3)  # of the chip's own the last, where there are no others
    timer.init(mode=timer.ONE_SHOT, period=seconds * 1000, callback=end)
    MicroPythonPort.timer = timer  # on rp2 nothing else refers to it


class MicroPythonPort:
    """See base.py for the meaning of each method."""

    name = "unix"
    pem = False
    machine: Any = machine if hasattr(machine, "reset") else None  # the unix port's own `machine` cannot reset
    board = "UNIX_VIRTUAL" if machine else "UNIX"
    chip = "host"
    timer: Any = None
    boot = ""  # boot_id of this process; a second port object must not count a second boot

    def __init__(self, config: Any = None) -> None:
        self.state_dir = (config and config.state_dir) or "/state"
        self.slots_dir = (config and config.slots_dir) or "/slots"

    def facts(self) -> "dict[str, Any]":
        facts = {
            "board": self.board,
            "chip": self.chip,
            "runtime": "micropython %d.%d.%d" % sys.implementation.version[:3],
            "port": self.name,
        }
        if self.machine:
            facts["serial"] = self.machine.unique_id().hex()
        return facts

    def memory(self) -> "dict[str, int]":
        from edgeagent.space import free

        gc.collect()
        return {
            "free": gc.mem_free(),  # type: ignore[attr-defined]
            "used": gc.mem_alloc(),  # type: ignore[attr-defined]
            "flash_free": free("/"),
        }

    def boot_id(self) -> str:
        if not self.boot:
            path = self.state_dir + "/boots"
            # The number of this boot, and the causes of the latest ones, newest first.
            words: "list[str]" = []
            try:
                words = (compat.read_file(path, 256) or b"").decode().split()[:_BOOTS]
                count = int(words.pop(0)) + 1
            except (ValueError, IndexError):
                count = 1
            self.boot = "boot-%d" % count
            words.insert(0, self.reset_cause())
            try:
                compat.make_dirs(self.state_dir)
                compat.write_atomic(path, ("%d " % count + " ".join(words)).encode())
            except OSError:
                # A full or dead flash must not make two boots look like one.
                self.boot += "-%s" % os.urandom(4).hex()
            MicroPythonPort.boot = self.boot
        return self.boot

    def reset_cause(self) -> str:
        machine = self.machine
        if hasattr(machine, "reset_cause"):
            words = "PWRON power-on HARD hard WDT watchdog DEEPSLEEP deep-sleep SOFT soft".split()  # noqa: SIM905 - smaller
            while words:
                text = words.pop()
                if getattr(machine, words.pop() + "_RESET", None) == machine.reset_cause():
                    return text
        return "unknown"

    def reset(self) -> None:
        if self.machine:
            self.machine.reset()
        sys.exit(75)

    def watchdog(self, seconds: int) -> Any:
        if hasattr(self.machine, "WDT"):
            return self.machine.WDT(timeout=seconds * 1000)
        return self

    def feed(self) -> None:
        """The port stands for a watchdog where there is none."""

    async def open_stream(self, host: str, port: int, server_hostname: str, ca: str, cert: str, key: str) -> Any:
        import ssl

        if clock.now() < clock.SET:  # TLS would refuse every server
            import ntptime

            try:
                ntptime.settime()  # blocks for at most its own time-out, 1 s
            except (OSError, OverflowError) as error:
                raise TransportError("clock is not set, NTP: " + compat.exc_text(error)) from None
        gc.collect()  # TLS wants one block of 16.7 KB (micropython.md, finding 5)
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # MicroPython's default is CERT_NONE; the stub does not know the attribute.
            context.verify_mode = ssl.CERT_REQUIRED  # type: ignore[attr-defined, unused-ignore]
            context.load_verify_locations(cadata=_credential(ca))
            if cert:
                context.load_cert_chain(_credential(cert), _credential(key))
            return await asyncio.open_connection(host, port, ssl=context, server_hostname=server_hostname)
        except (OSError, ValueError) as error:  # ValueError: invalid certificate or key
            raise TransportError("%s:%d: %s" % (host, port, compat.exc_text(error))) from None
