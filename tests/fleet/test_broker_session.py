# SPDX-License-Identifier: Apache-2.0
"""Sessions and the exchange against a model: nothing acknowledged is lost, order holds, memory is bounded."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgefleet.broker.batch import Batch
from edgefleet.broker.exchange import Exchange
from edgefleet.broker.limits import Limits
from edgefleet.broker.packets import Publish
from edgefleet.broker.session import Session
from edgefleet.store import Store
from tests.fleet.broker_support import packet

LIMITS = Limits(inflight=3, queue_messages=4, queue_bytes=100, replay_page=2)


class Outlet:
    """A connection without a wire: keeps what it was sent."""

    def __init__(self) -> None:
        self.congested = False
        self.sent: list[Publish] = []
        self.ended: str | None = None

    def send(self, data: bytes) -> None:
        size = int.from_bytes(data[2:4], "big")
        assert data == packet(data[0], data[2:])
        qos, topic, rest = data[0] >> 1 & 3, data[4 : 4 + size].decode(), data[4 + size :]
        ident = int.from_bytes(rest[:2], "big") if qos else 0
        self.sent.append(Publish(topic, rest[2:] if qos else rest, qos, bool(data[0] & 1), False, ident))

    def may_receive(self, topic: str) -> bool:
        return True

    def terminate(self, reason: str) -> None:
        self.ended = reason


def attached(persistent: bool = False) -> tuple[Session, Outlet]:
    session, outlet = Session("me", "id", persistent, LIMITS), Outlet()
    session.attach(outlet)
    return session, outlet


def test_window_then_queue_then_the_end() -> None:
    session, outlet = attached()
    for n in range(7):
        session.offer("t", b"%d" % n, 1)
    assert [m.payload for m in outlet.sent] == [b"0", b"1", b"2"] and outlet.ended is None
    session.offer("t", b"7", 1)
    assert outlet.ended == "THROTTLED"


def test_queue_is_bounded_in_bytes() -> None:
    session, outlet = attached()
    for _ in range(4):
        session.offer("t", b"x" * 60, 1)
    assert outlet.ended is None
    session.offer("t", b"x" * 60, 1)
    assert outlet.ended == "THROTTLED"


def test_qos_0_is_dropped_while_congested() -> None:
    session, outlet = attached()
    outlet.congested = True
    session.offer("t", b"0", 0)
    assert outlet.sent == []


def test_packet_identifiers_wrap_and_skip_those_in_flight() -> None:
    session, outlet = attached()
    session.offer("t", b"held", 1)
    for _ in range(65534):
        session.offer("t", b"", 1)
        session.acknowledged(outlet.sent[-1].packet_id)
    session.offer("t", b"", 1)
    assert outlet.sent[0].packet_id == 1
    assert outlet.sent[-2].packet_id == 65535
    assert outlet.sent[-1].packet_id == 2


def test_session_that_is_behind_sends_nothing_newer_first() -> None:
    session, outlet = attached(persistent=True)
    outlet.congested = True
    session.offer("t", b"older", 1, stored_id=1)
    outlet.congested = False
    session.offer("t", b"newer", 1, stored_id=2)  # before the older one was read from the store
    assert outlet.sent == [] and session.behind


class PersistentSession(RuleBasedStateMachine):
    """One subscriber with a persistent session, one stream of messages, any interleaving of turns, acknowledgements,
    congestion, disconnects and restarts. `durable` is what must reach the subscriber, `turns` end by hand.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(":memory:")
        self.count = 0
        self.uncommitted: list[int] = []
        self.durable: list[int] = []  # committed and not acknowledged by the subscriber
        self.outlet: Outlet | None = None
        self.since_attach: list[int] = []
        self._boot()
        self.reconnect()
        self.exchange.subscribe(self.exchange.sessions["me"], [("t", 1)], None)
        self.turn()

    def _boot(self) -> None:
        self.batch = Batch(self.store, lambda: None)
        self.exchange = Exchange(self.store, self.batch, LIMITS, lambda: 1000.0)

    @rule()
    def publish(self) -> None:
        self.exchange.publish("t", b"%d" % self.count, 1)
        self.uncommitted.append(self.count)
        self.count += 1

    @rule()
    def turn(self) -> None:
        self.batch.commit()
        self.durable += self.uncommitted
        self.uncommitted = []
        self.exchange.pump_all()
        self.batch.run_after()

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        if self.outlet is None or not self.outlet.sent:
            return
        message = self.outlet.sent.pop(data.draw(st.integers(0, len(self.outlet.sent) - 1)))
        self.exchange.acknowledged(self.exchange.sessions["me"], message.packet_id)
        self.turn()  # so that the model need not know of acknowledgements that were not committed
        self.durable.remove(int(message.payload))
        self.since_attach.append(int(message.payload))

    @rule(on=st.booleans())
    def congestion(self, on: bool) -> None:
        if self.outlet is not None:
            self.outlet.congested = on
            if not on:
                self.exchange.pump(self.exchange.sessions["me"])

    @rule()
    def read_everything(self) -> None:
        """A subscriber that reads and acknowledges gets all that is durable, without having to reconnect."""
        if self.outlet is None:
            return
        self.congestion(False)
        self.turn()
        while self.outlet.sent:
            message = self.outlet.sent.pop(0)
            self.durable.remove(int(message.payload))
            self.since_attach.append(int(message.payload))
            self.exchange.acknowledged(self.exchange.sessions["me"], message.packet_id)
            self.turn()
        assert self.durable == []

    @rule()
    def disconnect(self) -> None:
        if self.outlet is not None:
            self.exchange.close(self.exchange.sessions["me"])
            self.outlet = None

    @rule()
    def reconnect(self) -> None:
        self.disconnect()
        self.outlet = Outlet()
        self.since_attach = []
        self.exchange.open("me", False, self.outlet, lambda name: True)

    @rule()
    def crash(self) -> None:
        """The process dies between two turns; what was not committed was not acknowledged to its publisher."""
        self.uncommitted = []
        self.outlet = None
        self._boot()

    @invariant()
    def window_is_kept(self) -> None:
        assert self.outlet is None or len(self.outlet.sent) <= LIMITS.inflight

    @invariant()
    def nothing_is_sent_twice_or_out_of_order(self) -> None:
        if self.outlet is not None:
            sent = [int(message.payload) for message in self.outlet.sent]
            assert sent == sorted(set(sent))
            assert not set(sent) & set(self.since_attach)

    def teardown(self) -> None:
        """Whatever happened: a reading subscriber gets everything, in order."""
        self.turn()
        self.reconnect()
        assert self.outlet is not None
        expected, got = list(self.durable), []
        self.turn()
        while self.outlet.sent:
            message = self.outlet.sent.pop(0)
            got.append(int(message.payload))
            self.exchange.acknowledged(self.exchange.sessions["me"], message.packet_id)
            self.turn()
        assert got == expected
        with self.store.reading() as tx:
            assert tx.value("SELECT COUNT(*) FROM broker_queue") == 0
            assert tx.value("SELECT COUNT(*) FROM broker_message") == 0
        self.store.close()


PersistentSession.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestPersistentSession = PersistentSession.TestCase
