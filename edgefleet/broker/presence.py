# SPDX-License-Identifier: Apache-2.0
"""Who is connected: the table `connectivity` and the lifecycle events (aws-iot-protocol.md section 12.1)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgefleet.broker.batch import Batch
from edgefleet.broker.limits import Limits
from edgefleet.broker.packets import Will
from edgefleet.messages import compact
from edgefleet.store import Store, Tx

# Reasons that the broker itself gives; a Disconnect of the control plane may carry any other of section 12.1.
AUTH_ERROR = "AUTH_ERROR"
CLIENT_ERROR = "CLIENT_ERROR"
CLIENT_INITIATED = "CLIENT_INITIATED_DISCONNECT"
CONNECTION_LOST = "CONNECTION_LOST"
DUPLICATE_CLIENT_ID = "DUPLICATE_CLIENTID"
KEEP_ALIVE_TIMEOUT = "MQTT_KEEP_ALIVE_TIMEOUT"
SERVER_ERROR = "SERVER_ERROR"
SERVER_INITIATED = "SERVER_INITIATED_DISCONNECT"

Publish = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Facts:
    """What is known of an established connection; times in epoch milliseconds, keep-alive in seconds."""

    client_id: str
    thing_name: str | None
    certificate_id: str
    session_id: str
    source_ip: str
    source_port: int
    keep_alive: int
    clean_session: bool
    connected_ms: int
    version: int
    will: Will | None


class Presence:
    def __init__(self, store: Store, batch: Batch, publish: Publish, limits: Limits, clock: Callable[[], float]):
        """publish: routes an event as an ordinary QoS 1 message."""
        self._store = store
        self._batch = batch
        self._publish = publish
        self._limits = limits
        self._clock = clock
        # Version numbers given since the last commit, when the table does not show them yet.
        self._recent: dict[str, int] = {}

    def now_ms(self) -> int:
        return int(self._clock() * 1000)

    def next_version(self, client_id: str) -> int:
        """Grows with every connection of a client id; starts again at 0 after about an hour offline."""
        version = self._recent.get(client_id)
        if version is None:
            with self._store.reading() as tx:
                row = tx.one(
                    "SELECT connected, timestamp_ms, version FROM connectivity WHERE client_id = ?", (client_id,)
                )
            if row is not None and (
                row["connected"] or self.now_ms() - row["timestamp_ms"] < self._limits.presence_s * 1000
            ):
                version = int(row["version"])
        version = 0 if version is None else version + 1
        if not self._recent:
            self._batch.after(self._recent.clear)
        self._recent[client_id] = version
        return version

    def connected(self, facts: Facts, owner: Any) -> None:
        """owner: the connection, which gets its CONNACK only if this is stored."""
        self._batch.add(lambda tx: _save(tx, facts), owner)
        self._event("presence", "connected", facts, ipAddress=facts.source_ip, versionNumber=facts.version)

    def disconnected(self, facts: Facts, reason: str) -> None:
        """`reason`: a disconnectReason."""
        now_ms = self.now_ms()
        self._batch.add(lambda tx: _save_end(tx, facts, reason, now_ms))
        self._event(
            "presence",
            "disconnected",
            facts,
            ipAddress=facts.source_ip,
            clientInitiatedDisconnect=reason == CLIENT_INITIATED,
            disconnectReason=reason,
            versionNumber=facts.version,
        )

    def connect_failed(self, client_id: str, certificate_id: str, source_ip: str) -> None:
        """A CONNECT was refused by policy."""
        if _hidden(client_id):
            return
        document = {
            "clientId": client_id,
            "timestamp": self.now_ms(),
            "eventType": "connect_failed",
            "connectFailureReason": "AUTHORIZATION_FAILED",
            "principalIdentifier": certificate_id,
            "ipAddress": source_ip,
        }
        self._publish(f"$aws/events/presence/connect_failed/{client_id}", compact(document))

    def subscriptions(self, facts: Facts, kind: str, filters: Sequence[str]) -> None:
        """`kind`: `subscribed` or `unsubscribed`; filters: the granted ones."""
        if filters:
            self._event("subscriptions", kind, facts, topics=list(filters))

    def _event(self, family: str, kind: str, facts: Facts, **members: Any) -> None:
        if _hidden(facts.client_id):
            return
        document: dict[str, Any] = {"clientId": facts.client_id}
        # Only for exclusive attachments. A thing of another name than the client id is certainly one; where both are
        # equal the member would say nothing new.
        if family == "presence" and facts.thing_name not in (None, facts.client_id):
            document["thingName"] = facts.thing_name
        document.update(
            timestamp=self.now_ms(),
            eventType=kind,
            sessionIdentifier=facts.session_id,
            principalIdentifier=facts.certificate_id,
            **members,
        )
        self._publish(f"$aws/events/{family}/{kind}/{facts.client_id}", compact(document))

    def left_connected(self) -> list[Facts]:
        """Connections that a process left behind when it died; disconnected() is due for each."""
        with self._store.reading() as tx:
            rows = tx.all("SELECT * FROM connectivity WHERE connected = 1")
        return [_facts(row) for row in rows]

    def sweep(self) -> None:
        """Forget clients that are long gone and belong to no thing."""
        horizon = self.now_ms() - int(self._limits.presence_s * 1000)
        self._batch.add(
            lambda tx: tx.execute(
                "DELETE FROM connectivity WHERE connected = 0 AND timestamp_ms < ? AND thing_name IS NULL", (horizon,)
            )
        )


def _hidden(client_id: str) -> bool:
    """Such a client id cannot stand in a topic."""
    return "#" in client_id or "+" in client_id


def _save(tx: Tx, facts: Facts) -> None:
    will = facts.will
    tx.execute(
        "INSERT OR REPLACE INTO connectivity VALUES (?, ?, ?, ?, 1, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            facts.client_id,
            facts.thing_name,
            facts.certificate_id,
            facts.session_id,
            facts.connected_ms,
            facts.connected_ms,
            facts.version,
            facts.keep_alive,
            int(facts.clean_session),
            facts.source_ip,
            facts.source_port,
            *((None, None, None, None) if will is None else (will.topic, will.payload, will.qos, int(will.retain))),
        ),
    )
    if facts.thing_name is not None:
        tx.touch(facts.thing_name)


def _save_end(tx: Tx, facts: Facts, reason: str, now_ms: int) -> None:
    tx.execute(
        "UPDATE connectivity SET connected = 0, timestamp_ms = ?, disconnect_reason = ?, will_topic = NULL,"
        " will_payload = NULL, will_qos = NULL, will_retain = NULL WHERE client_id = ?",
        (now_ms, reason, facts.client_id),
    )
    if facts.thing_name is not None:
        tx.touch(facts.thing_name)


def _facts(row: sqlite3.Row) -> Facts:
    will = None
    if row["will_topic"] is not None:
        will = Will(row["will_topic"], row["will_payload"], row["will_qos"], bool(row["will_retain"]))
    return Facts(
        client_id=row["client_id"],
        thing_name=row["thing_name"],
        certificate_id=row["certificate_id"],
        session_id=row["session_id"],
        source_ip=row["source_ip"],
        source_port=row["source_port"],
        keep_alive=row["keep_alive"],
        clean_session=bool(row["clean_session"]),
        connected_ms=row["connected_ms"],
        version=row["version"],
        will=will,
    )


def of_client(tx: Tx, client_id: str) -> sqlite3.Row | None:
    """The `connectivity` row of a client id."""
    return tx.one("SELECT * FROM connectivity WHERE client_id = ?", (client_id,))


def of_thing(tx: Tx, thing_name: str) -> sqlite3.Row | None:
    """The `connectivity` row that speaks for a thing: a live one if there is any, else the latest."""
    return tx.one(
        "SELECT * FROM connectivity WHERE thing_name = ? ORDER BY connected DESC, timestamp_ms DESC LIMIT 1",
        (thing_name,),
    )
