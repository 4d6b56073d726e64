# SPDX-License-Identifier: Apache-2.0
"""Sessions and routing: from a published message to the sessions that get it, in RAM and in the store."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from edgefleet.broker import records
from edgefleet.broker.batch import Batch
from edgefleet.broker.limits import Limits
from edgefleet.broker.router import Router
from edgefleet.broker.rules import has_wildcard
from edgefleet.broker.session import Outlet, Session
from edgefleet.store import Store, Tx

log = logging.getLogger(__name__)


class Exchange:
    """All sessions, live ones and persistent ones that wait for their client."""

    def __init__(self, store: Store, batch: Batch, limits: Limits, clock: Callable[[], float]) -> None:
        """clock: epoch seconds."""
        self.sessions: dict[str, Session] = {}
        self._store = store
        self._batch = batch
        self._limits = limits
        self._clock = clock
        self._router: Router[Session] = Router()
        self._to_pump: set[Session] = set()
        with store.transaction() as tx:
            self._load(tx)

    def _load(self, tx: Tx) -> None:
        now = self._clock()
        self._message_id = records.last_message_id(tx)
        counts = records.waiting_counts(tx)
        sessions, subscriptions = records.resume_all(tx, now)
        for row in sessions:
            session = Session(row["client_id"], row["session_id"], True, self._limits)
            session.disconnected_at = row["disconnected_at"] or now
            session.stored = counts.get(session.client_id, 0)
            self.sessions[session.client_id] = session
        for row in subscriptions:
            owner = self.sessions.get(row["client_id"])
            if owner is not None:
                owner.subscriptions[row["filter"]] = row["qos"]
                self._router.add(row["filter"], owner, row["qos"])

    # Sessions.

    def open(
        self, client_id: str, clean: bool, outlet: Outlet, may_subscribe: Callable[[str], bool]
    ) -> tuple[Session, bool]:
        """The session of a new connection, and whether it was there before (`session present`).

        may_subscribe: judges a filter by the new connection's policy. A resumed session keeps only what passes: the
        client id may have come into other hands than those that subscribed.
        """
        session = self.sessions.get(client_id)
        present = session is not None and session.persistent and not clean and not session.expired(self._clock())
        if session is not None and not present:
            self._drop(session)
            session = None
        if session is None:
            session = Session(client_id, str(uuid.uuid4()), not clean, self._limits)
            self.sessions[client_id] = session
        elif lost := [name for name in session.subscriptions if not may_subscribe(name)]:
            self.unsubscribe(session, lost)
        session.attach(outlet)
        if session.persistent:
            self._batch.add(partial(records.save_session, client_id=client_id, session_id=session.session_id), outlet)
        self.pump(session)
        return session, present

    def close(self, session: Session) -> None:
        """The connection of a session is gone."""
        session.detach(self._clock())
        if session.persistent:
            self._batch.add(
                partial(records.leave_session, client_id=session.client_id, now=session.disconnected_at), None
            )
        else:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        for topic_filter in session.subscriptions:
            self._router.remove(topic_filter, session)
        session.subscriptions.clear()
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        if session.persistent:
            self._batch.add(partial(records.drop_session, client_id=session.client_id))

    def sweep(self) -> None:
        """Forget expired sessions and messages; called now and then."""
        now = self._clock()
        for session in [session for session in self.sessions.values() if session.expired(now)]:
            self._drop(session)
        self._batch.add(partial(records.expire, now=now))
        self._batch.after(self._recount)

    def _recount(self) -> None:
        with self._store.reading() as tx:
            counts = records.waiting_counts(tx)
        for session in self.sessions.values():
            session.stored = counts.get(session.client_id, 0)

    # Subscriptions.

    def subscribe(self, session: Session, filters: Sequence[tuple[str, int]], owner: Any) -> None:
        """Add permitted, legal filters; then send what is retained under them."""
        for topic_filter, qos in filters:
            session.subscriptions[topic_filter] = qos
            self._router.add(topic_filter, session, qos)
        if session.persistent:
            self._batch.add(partial(records.subscribe, client_id=session.client_id, filters=filters), owner)
        # Retained messages reach only filters that name their topic exactly (aws-iot-protocol.md section 2.6).
        exact = [(name, qos) for name, qos in filters if name[0] != "$" and not has_wildcard(name)]
        if exact:
            self._batch.after(partial(self._send_retained, session, exact))

    def unsubscribe(self, session: Session, filters: Sequence[str], owner: Any = None) -> None:
        for topic_filter in filters:
            if session.subscriptions.pop(topic_filter, None) is not None:
                self._router.remove(topic_filter, session)
        if session.persistent:
            self._batch.add(partial(records.unsubscribe, client_id=session.client_id, filters=filters), owner)

    def _send_retained(self, session: Session, filters: Sequence[tuple[str, int]]) -> None:
        with self._store.reading() as tx:
            found = [(row, qos) for name, qos in filters if (row := records.retained(tx, name)) is not None]
        for row, granted in found:
            if session.outlet is not None and session.outlet.may_receive(row["topic"]):
                self._give({session: min(granted, row["qos"])}, row["topic"], row["payload"], True, None)

    # Messages.

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False, owner: Any = None) -> None:
        """Route a message whose publication is permitted. owner: see Batch.add."""
        if retain:
            now_ms = int(self._clock() * 1000)
            self._batch.add(partial(records.retain, topic=topic, payload=payload, qos=qos, now_ms=now_ms), owner)
        readers = {}
        for session, granted in self._router.match(topic).items():
            # Without a connection nobody can be asked for iot:Receive; then it is judged when the message is sent.
            if session.outlet is None or session.outlet.may_receive(topic):
                readers[session] = min(qos, granted)
        # A retained message that reaches a subscriber as it is published does not carry the flag (MQTT 3.3.1-9).
        self._give(readers, topic, payload, False, owner)

    def _give(self, readers: dict[Session, int], topic: str, payload: bytes, retain: bool, owner: Any) -> None:
        store_for = []
        for session, qos in readers.items():
            if not session.persistent or qos == 0:
                session.offer(topic, payload, qos, retain)
            elif session.stored >= self._limits.stored_messages:
                log.warning("session of %r is full: a message on %s is dropped", session.client_id, topic)
            else:
                store_for.append(session)
        if not store_for:
            return
        self._message_id += 1
        expires_at = self._clock() + self._limits.session_s
        client_ids = [session.client_id for session in store_for]
        self._batch.add(
            partial(
                records.store_message,
                message_id=self._message_id,
                topic=topic,
                payload=payload,
                retain=retain,
                expires_at=expires_at,
                client_ids=client_ids,
            ),
            owner,
        )
        for session in store_for:
            session.stored += 1
            session.offer(topic, payload, 1, retain, self._message_id)

    def acknowledged(self, session: Session, packet_id: int) -> None:
        """A subscriber sent PUBACK."""
        stored_id = session.acknowledged(packet_id)
        if stored_id:
            self._forget(session, stored_id)
        if session.waits():
            self.pump(session)

    def _forget(self, session: Session, stored_id: int) -> None:
        session.stored = max(0, session.stored - 1)
        self._batch.add(partial(records.forget_message, client_id=session.client_id, message_id=stored_id))

    def pump(self, session: Session) -> None:
        """There may be room again: send what waits, at the end of this turn."""
        if session.waits():
            self._to_pump.add(session)
            self._batch.wake()

    def pump_all(self) -> None:
        """Right after a commit, before anything new is published: the store then holds all that sessions wait for."""
        sessions, self._to_pump = self._to_pump, set()
        for session in sessions:
            session.send_queued()
            while session.behind and session.room() > 0:
                self._replay_page(session)

    def _replay_page(self, session: Session) -> None:
        page = min(session.room(), self._limits.replay_page)
        with self._store.reading() as tx:
            rows = records.waiting(tx, session.client_id, session.sent_up_to, self._clock(), page)
        for row in rows:
            if session.room() <= 0 or session.outlet is None:
                return
            if session.outlet.may_receive(row["topic"]):
                session.send_stored(row["id"], row["topic"], row["payload"], bool(row["retain"]))
            else:
                session.sent_up_to = row["id"]
                self._forget(session, row["id"])
        session.behind = len(rows) == page
