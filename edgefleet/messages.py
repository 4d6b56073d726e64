# SPDX-License-Identifier: Apache-2.0
"""What the control plane hands to the broker once a transaction is durable, and what the broker hands to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple


class Message(NamedTuple):
    """An MQTT message to send. `to_requester`: only to the connection whose request is being answered, subscribed or
    not (aws-iot-protocol.md section 0, rule 1); otherwise an ordinary broker message to every permitted subscriber.
    """

    topic: str
    payload: bytes
    qos: int = 1
    to_requester: bool = False


class Disconnect(NamedTuple):
    """Close every connection of a certificate, or of a client id. `reason` is a disconnectReason of section 12.1."""

    reason: str
    certificate_id: str | None = None
    client_id: str | None = None


Outgoing = Message | Disconnect


@dataclass(frozen=True)
class Request:
    """A PUBLISH on a reserved topic, already authorised by policy."""

    topic: str
    payload: bytes
    client_id: str
    certificate_id: str
    qos: int = 1


def compact(document: Any) -> bytes:
    """Compact UTF-8 JSON, as the service sends it (section 1.4)."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
