# SPDX-License-Identifier: Apache-2.0
"""Persistent sessions and retained messages in the store. Functions over a transaction, no state of their own.

No foreign keys on purpose: these writes are idempotent and committed in groups, and one that comes late must not make
the group of unrelated connections fail.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edgefleet.store import Tx


def save_session(tx: Tx, client_id: str, session_id: str) -> None:
    """A persistent session is in use."""
    tx.execute(
        "INSERT INTO broker_session VALUES (?, ?, NULL)"
        " ON CONFLICT (client_id) DO UPDATE SET session_id = excluded.session_id, disconnected_at = NULL",
        (client_id, session_id),
    )


def leave_session(tx: Tx, client_id: str, now: float) -> None:
    """A persistent session is left alone; its life is counted from here."""
    tx.execute("UPDATE broker_session SET disconnected_at = ? WHERE client_id = ?", (now, client_id))


def drop_session(tx: Tx, client_id: str) -> None:
    """Messages that nobody else waits for go with the next expire()."""
    tx.execute("DELETE FROM broker_session WHERE client_id = ?", (client_id,))
    tx.execute("DELETE FROM broker_subscription WHERE client_id = ?", (client_id,))
    tx.execute("DELETE FROM broker_queue WHERE client_id = ?", (client_id,))


def resume_all(tx: Tx, now: float) -> tuple[list[sqlite3.Row], list[sqlite3.Row]]:
    """At start: (sessions, subscriptions). Sessions that were in use when the last process ended begin to age now."""
    tx.execute("UPDATE broker_session SET disconnected_at = ? WHERE disconnected_at IS NULL", (now,))
    return tx.all("SELECT * FROM broker_session"), tx.all("SELECT * FROM broker_subscription")


def subscribe(tx: Tx, client_id: str, filters: Sequence[tuple[str, int]]) -> None:
    tx.executemany(
        "INSERT INTO broker_subscription VALUES (?, ?, ?)"
        " ON CONFLICT (client_id, filter) DO UPDATE SET qos = excluded.qos",
        [(client_id, topic_filter, qos) for topic_filter, qos in filters],
    )


def unsubscribe(tx: Tx, client_id: str, filters: Sequence[str]) -> None:
    tx.executemany(
        "DELETE FROM broker_subscription WHERE client_id = ? AND filter = ?", [(client_id, name) for name in filters]
    )


def last_message_id(tx: Tx) -> int:
    return int(tx.value("SELECT COALESCE(MAX(id), 0) FROM broker_message"))


def store_message(
    tx: Tx, message_id: int, topic: str, payload: bytes, retain: bool, expires_at: float, client_ids: Sequence[str]
) -> None:
    tx.execute(
        "INSERT OR REPLACE INTO broker_message VALUES (?, ?, ?, ?, ?)",
        (message_id, topic, payload, int(retain), expires_at),
    )
    tx.executemany(
        "INSERT OR IGNORE INTO broker_queue VALUES (?, ?)", [(client_id, message_id) for client_id in client_ids]
    )


def forget_message(tx: Tx, client_id: str, message_id: int) -> None:
    """`client_id` has it; the message itself goes with its last reader."""
    tx.execute("DELETE FROM broker_queue WHERE client_id = ? AND message_id = ?", (client_id, message_id))
    tx.execute(
        "DELETE FROM broker_message WHERE id = ? AND NOT EXISTS (SELECT 1 FROM broker_queue WHERE message_id = ?)",
        (message_id, message_id),
    )


def waiting(tx: Tx, client_id: str, after: int, now: float, limit: int) -> list[sqlite3.Row]:
    """Messages (id, topic, payload, retain) stored for a session after id `after`, oldest first, at most `limit`."""
    return tx.all(
        "SELECT m.id, m.topic, m.payload, m.retain FROM broker_queue q JOIN broker_message m ON m.id = q.message_id"
        " WHERE q.client_id = ? AND q.message_id > ? AND m.expires_at > ? ORDER BY q.message_id LIMIT ?",
        (client_id, after, now, limit),
    )


def waiting_counts(tx: Tx) -> dict[str, int]:
    return dict(tx.all("SELECT client_id, COUNT(*) FROM broker_queue GROUP BY client_id"))  # type: ignore[arg-type]


def expire(tx: Tx, now: float) -> None:
    """Delete messages past their time."""
    tx.execute(
        "DELETE FROM broker_queue WHERE message_id IN (SELECT id FROM broker_message WHERE expires_at <= ?)", (now,)
    )
    tx.execute("DELETE FROM broker_message WHERE expires_at <= ?", (now,))


def retain(tx: Tx, topic: str, payload: bytes, qos: int, now_ms: int) -> None:
    """The newest message of a topic stays; an empty payload removes it (aws-iot-protocol.md section 2.6)."""
    if payload:
        tx.execute("INSERT OR REPLACE INTO retained VALUES (?, ?, ?, ?)", (topic, payload, qos, now_ms))
    else:
        tx.execute("DELETE FROM retained WHERE topic = ?", (topic,))


def retained(tx: Tx, topic: str) -> sqlite3.Row | None:
    """(topic, payload, qos, modified_ms)."""
    return tx.one("SELECT * FROM retained WHERE topic = ?", (topic,))
