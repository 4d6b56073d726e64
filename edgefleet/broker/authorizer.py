# SPDX-License-Identifier: Apache-2.0
"""What the broker asks of whoever decides about certificates and policies. The registry implements it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Denied(Exception):
    """The connection is refused; `str(e)` says why, for the log only (the peer learns nothing)."""


@dataclass(frozen=True)
class ConnectionRef:
    """One live connection, as a value: it stays comparable after the connection is gone and keeps nothing alive.

    `serial` is unique within a Broker; a reconnect of the same client has another one.
    """

    serial: int
    client_id: str
    certificate_id: str
    thing_name: str | None
    source_ip: str


class Principal(Protocol):
    """Who a connection is; made at CONNECT, asked for every publish, subscribe and receive."""

    @property
    def certificate_id(self) -> str:
        """SHA-256 of the certificate's DER form, lower-case hexadecimal."""

    @property
    def thing_name(self) -> str | None:
        """The associated thing: attached and named as the client id, or attached exclusively (section 7.7)."""

    def allows(self, action: str, resource: str) -> bool:
        """`action`: `iot:Publish` …; `resource`: `topic/T`, `topicfilter/F`, `client/C` (section 7.8)."""


class Authorizer(Protocol):
    def connect(
        self, certificate_der: bytes, client_id: str, source_ip: str, *, persistent: bool, will_topic: str | None
    ) -> Principal:
        """Judge a CONNECT. Raises Denied for an unknown or inactive certificate, or if policy forbids it."""

    def certificate_active(self, certificate_der: bytes) -> bool:
        """Whether the certificate is registered and ACTIVE."""

    def forget(self) -> None:
        """Policies changed: every Principal evaluates anew at its next use."""
