# SPDX-License-Identifier: Apache-2.0
"""One MQTT session: its subscriptions and the flow of messages to its connection. No I/O of its own.

RAM is bounded whatever the subscriber does. QoS 0 messages to a slow peer are dropped. QoS 1 messages of a clean
session wait in a bounded queue; when it is full the peer is disconnected. QoS 1 messages of a persistent session are
in the store, so nothing of them is held here but the ids in flight: a session that is `behind` reads on from there.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from edgefleet.broker import packets
from edgefleet.broker.limits import Limits


class Outlet(Protocol):
    """The connection of a session, as the session sees it."""

    @property
    def congested(self) -> bool:
        """The peer reads slower than it is sent to."""

    def send(self, data: bytes) -> None: ...

    def may_receive(self, topic: str) -> bool: ...

    def terminate(self, reason: str) -> None: ...


class Session:
    """Identity is that of the object (it is a key of the router)."""

    def __init__(self, client_id: str, session_id: str, persistent: bool, limits: Limits) -> None:
        self.client_id = client_id
        self.session_id = session_id
        self.persistent = persistent
        self.subscriptions: dict[str, int] = {}
        self.outlet: Outlet | None = None
        self.disconnected_at = 0.0  # epoch seconds, while there is no outlet
        self.stored = 0  # messages in the store
        self.behind = False  # the store holds messages that were not sent since the last attach()
        self.sent_up_to = 0  # id of the last stored message sent since attach()
        self._limits = limits
        self._inflight: dict[int, int] = {}  # packet id -> id in the store, 0 if it is not there
        self._queue: deque[tuple[str, bytes, bool]] = deque()
        self._queue_bytes = 0
        self._last_id = 0

    def attach(self, outlet: Outlet) -> None:
        """A connection takes the session up; everything stored is to be sent (again), in order."""
        self.outlet = outlet
        self.behind = self.stored > 0
        self.sent_up_to = 0

    def detach(self, now: float) -> None:
        """The connection is gone; what is not in the store is forgotten."""
        self.outlet = None
        self.disconnected_at = now
        self._inflight.clear()
        self._queue.clear()
        self._queue_bytes = 0

    def expired(self, now: float) -> bool:
        return self.outlet is None and now - self.disconnected_at > self._limits.session_s

    def room(self) -> int:
        """How many QoS 1 messages may be sent now."""
        if self.outlet is None or self.outlet.congested:
            return 0
        return self._limits.inflight - len(self._inflight)

    def inflight(self) -> int:
        return len(self._inflight)

    def offer(self, topic: str, payload: bytes, qos: int, retain: bool = False, stored_id: int = 0) -> None:
        """Send a message, or let it wait, or drop it, by the rules above. stored_id: its id if the store has it."""
        outlet = self.outlet
        if outlet is None:
            return
        if qos == 0:
            if not outlet.congested:
                outlet.send(packets.publish(topic, payload, 0, retain))
            return
        must_wait = bool(self._queue) or self.room() <= 0
        if stored_id:
            if self.behind or must_wait:
                self.behind = True
            else:
                self.send_stored(stored_id, topic, payload, retain)
        elif not must_wait:
            self._transmit(topic, payload, retain, 0)
        else:
            self._queue.append((topic, payload, retain))
            self._queue_bytes += len(payload)
            if len(self._queue) > self._limits.queue_messages or self._queue_bytes > self._limits.queue_bytes:
                outlet.terminate("THROTTLED")

    def send_stored(self, stored_id: int, topic: str, payload: bytes, retain: bool) -> None:
        """Only with room() > 0."""
        self.sent_up_to = stored_id
        self._transmit(topic, payload, retain, stored_id)

    def send_queued(self) -> None:
        while self._queue and self.room() > 0:
            topic, payload, retain = self._queue.popleft()
            self._queue_bytes -= len(payload)
            self._transmit(topic, payload, retain, 0)

    def waits(self) -> bool:
        """Whether messages wait for room()."""
        return self.behind or bool(self._queue)

    def acknowledged(self, packet_id: int) -> int:
        """PUBACK: the id in the store of the message, or 0 if there is nothing to delete."""
        return self._inflight.pop(packet_id, 0)

    def _transmit(self, topic: str, payload: bytes, retain: bool, stored_id: int) -> None:
        assert self.outlet is not None
        packet_id = self._last_id
        while True:  # ends: the window is smaller than the number of identifiers
            packet_id = packet_id % 65535 + 1
            if packet_id not in self._inflight:
                break
        self._last_id = packet_id
        self._inflight[packet_id] = stored_id
        self.outlet.send(packets.publish(topic, payload, 1, retain, packet_id))
