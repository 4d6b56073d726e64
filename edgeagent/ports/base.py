# SPDX-License-Identifier: Apache-2.0
"""The interface of a port, for reading and for type checkers; boards never load this file and ports do not inherit it.

Everything a port raises is TransportError or ConfigError, with a reason an operator can act on.
"""

from __future__ import annotations

from typing import Any, Protocol


class Watchdog(Protocol):
    """Restarts the device unless it is fed."""

    def feed(self) -> None:
        """Tell the watchdog that the agent is alive. Raises nothing, blocks for nothing."""


class Port(Protocol):
    """What the agent needs of a machine.

    name: "unix", "esp32", "linux". state_dir, slots_dir: absolute paths; the agent creates what it puts there.
    pem: credentials are stored as PEM (CPython reads nothing else) or as DER (boards read nothing else, A1.3).
    """

    name: str
    state_dir: str
    slots_dir: str
    pem: bool

    def facts(self) -> dict[str, Any]:
        """{"board", "chip", "runtime", "port"} and, where the machine has one, "serial": short texts that do not change
        while the process runs.
        """

    def memory(self) -> dict[str, int]:
        """Bytes: "free" and "used" RAM, "flash_free"; a port may add more."""

    def metrics(self) -> dict[str, Any]:
        """The standard metrics of a Device Defender report. Boards have no such method."""

    def boot_id(self) -> str:
        """Text that is the same during one boot (or process) and different after every restart."""

    def reset_cause(self) -> str:
        """Why this boot happened: "power-on", "hard", "watchdog", "deep-sleep", "soft", "killed" (hosts)
        or "unknown".
        """

    def reset(self) -> None:
        """Restart the device. Does not return; durable state must be written before."""

    def watchdog(self, seconds: int) -> Watchdog:
        """Arm the watchdog. Without one on this machine: an object whose feed() does nothing."""

    async def open_stream(self, host: str, port: int, server_hostname: str, ca: str, cert: str, key: str) -> Any:
        """(reader, writer) of a mutually authenticated TLS connection; if cert is "", of one without an own identity.

        ca, cert, key: paths in the port's form (see pem). The server must present a certificate that `ca` signed for
        server_hostname. Raises TransportError. MicroPython completes the handshake in the first write or read, so
        there OSError and ValueError of TLS come from the stream; the MQTT client maps them.
        """

    def make_csr(self, name: str) -> tuple[bytes, str] | None:
        """(private key PEM, certificate signing request PEM) for a common name. None, or no such method at all: this
        machine has no better way than edgeagent/csr.py.
        """
