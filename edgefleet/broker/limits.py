# SPDX-License-Identifier: Apache-2.0
"""Every bound of the broker, in one place; tests and operators may pass other values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """AWS's numbers (aws-iot-protocol.md sections 2.2, 2.4, 2.6 and 17) where AWS has one, else our own."""

    # Connection.
    client_id_bytes: int = 128
    keep_alive_min: float = 30  # seconds; a smaller request behaves as this
    keep_alive_max: float = 1200  # seconds; 0 or a larger request behaves as this
    keep_alive_grace: float = 1.5  # silence allowed, in keep-alive intervals
    handshake_s: float = 10.0  # TLS
    connect_s: float = 10.0  # from the handshake to the CONNECT
    close_s: float = 1.0  # orderly TLS shutdown, then the socket is cut

    # Messages.
    topic_bytes: int = 256
    topic_slashes: int = 7
    payload_bytes: int = 131_072
    packet_bytes: int = 149_504

    # Subscriptions.
    filters_per_subscribe: int = 8
    subscriptions: int = 50

    # Outgoing, per connection.
    inflight: int = 100  # QoS 1 messages sent and not yet acknowledged
    queue_messages: int = 1000  # QoS 1 messages in RAM that wait for the window or the socket
    queue_bytes: int = 2 * 1024 * 1024
    write_buffer: int = 256 * 1024  # bytes; above it the peer counts as slow

    # Persistent sessions.
    session_s: float = 3600  # a session, and a message stored for it, lives so long
    stored_messages: int = 1000  # per session; what comes on top is dropped
    replay_page: int = 16  # stored messages read at a time
    sweep_s: float = 30.0  # how often expired sessions and messages are removed
    presence_s: float = 3600  # offline time after which a client's version number starts again
