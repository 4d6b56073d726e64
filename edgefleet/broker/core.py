# SPDX-License-Identifier: Apache-2.0
"""The broker: listens, delivers what the control plane wants sent, and ends each turn of the loop with a commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Sequence

from edgefleet.broker import presence
from edgefleet.broker.authorizer import Authorizer, ConnectionRef
from edgefleet.broker.batch import Batch, BatchFailed
from edgefleet.broker.connection import Connection, ConnectionInfo, HandleReserved, Services
from edgefleet.broker.exchange import Exchange
from edgefleet.broker.limits import Limits
from edgefleet.broker.link import Link
from edgefleet.broker.presence import Presence
from edgefleet.messages import Disconnect, Message, Outgoing
from edgefleet.store import Store

log = logging.getLogger(__name__)


class Broker:
    """An MQTT 3.1.1 broker with AWS IoT's semantics. All methods belong to the thread of the event loop and store.

    Example:
        broker = Broker(store, authorizer, handle_reserved)
        port = await broker.start("0.0.0.0", 8883, server_context)
    """

    def __init__(
        self,
        store: Store,
        authorizer: Authorizer,
        handle_reserved: HandleReserved,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """handle_reserved(request, connection): a permitted PUBLISH on a reserved topic. It commits, and calls
        deliver() with the answers; when it returns the PUBLISH is acknowledged. clock: epoch seconds.
        """
        self._limits = limits or Limits()
        self._authorizer = authorizer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._turn_due = False
        self._dirty: dict[Link, None] = {}  # in the order in which they got output
        self._links: set[Link] = set()
        self._all_lost: asyncio.Event | None = None  # while stop() waits
        self._live: dict[int, Connection] = {}  # by serial
        self._by_certificate: dict[str, set[Connection]] = {}
        self._batch = Batch(store, self._wake)
        self._exchange = Exchange(store, self._batch, self._limits, clock)
        self._presence = Presence(store, self._batch, self._publish_event, self._limits, clock)
        self._services = Services(
            self._exchange,
            self._presence,
            authorizer,
            handle_reserved,
            self._limits,
            self._established,
            self._connection_ended,
        )

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen; returns the bound port (that of the first address if `host` has several).

        context: a server context that demands a client certificate. Raises OSError if the port is taken.
        """
        self._loop = asyncio.get_running_loop()
        self._recover()
        self._server = await self._loop.create_server(
            lambda: Link(self, self._limits),
            host,
            port,
            ssl=context,
            backlog=1024,
            ssl_handshake_timeout=self._limits.handshake_s,
            ssl_shutdown_timeout=self._limits.close_s,
        )
        self._sweep()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Close every connection (SERVER_INITIATED_DISCONNECT), store what is due, stop listening. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._live.values()):
            connection.terminate(presence.SERVER_INITIATED)
        for link in self._links:
            if not link.closing:
                link.abort()  # has not said who it is
        self._turn()
        if self._links:
            self._all_lost = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_lost.wait(), 2 * self._limits.close_s)
        self._loop = None
        self._turn()

    def deliver(self, outgoing: Sequence[Outgoing], requester: ConnectionRef | None = None) -> None:
        """Send what a transaction left behind, in its order. requester: whom Message.to_requester means; if it is gone
        these messages are dropped. Before start() and after stop() persistent sessions still get theirs stored.
        """
        for item in outgoing:
            if isinstance(item, Disconnect):
                self._disconnect(item)
            elif not item.to_requester:
                self._exchange.publish(item.topic, item.payload, item.qos)
            elif requester is not None:
                connection = self._live.get(requester.serial)
                if connection is not None:
                    connection.reply(item.topic, item.payload, item.qos)
        if self._loop is None:
            self._turn()

    def connections(self) -> list[ConnectionInfo]:
        """The live connections."""
        return [connection.info() for connection in self._live.values()]

    def _disconnect(self, item: Disconnect) -> None:
        concerned = set(self._by_certificate.get(item.certificate_id or "", ()))
        if item.client_id is not None:
            concerned |= {c for c in self._live.values() if c.ref is not None and c.ref.client_id == item.client_id}
        for connection in concerned:
            connection.terminate(item.reason)

    def _recover(self) -> None:
        """Connections that the last process left behind are over; their events and wills are due."""
        for facts in self._presence.left_connected():
            self._presence.disconnected(facts, presence.SERVER_ERROR)
            if facts.will is not None:
                will = facts.will
                self._exchange.publish(will.topic, will.payload, will.qos, will.retain)
        self._turn()

    def _sweep(self) -> None:
        assert self._loop is not None
        self._exchange.sweep()
        self._presence.sweep()
        self._sweeper = self._loop.call_later(self._limits.sweep_s, self._sweep)

    def _publish_event(self, topic: str, payload: bytes) -> None:
        self.deliver([Message(topic, payload)])

    # Connections.

    def link_made(self, link: Link) -> Connection:
        self._links.add(link)
        if self._server is None:
            link.abort()  # its handshake ended after stop()
        return Connection(link, self._services)

    def link_dirty(self, link: Link) -> None:
        self._dirty[link] = None
        self._wake()

    def link_lost(self, link: Link) -> None:
        self._links.discard(link)
        if not self._links and self._all_lost is not None:
            self._all_lost.set()

    def _established(self, connection: Connection) -> None:
        assert connection.ref is not None
        self._live[connection.ref.serial] = connection
        self._by_certificate.setdefault(connection.ref.certificate_id, set()).add(connection)

    def _connection_ended(self, connection: Connection) -> None:
        assert connection.ref is not None
        self._live.pop(connection.ref.serial, None)
        siblings = self._by_certificate.get(connection.ref.certificate_id)
        if siblings is not None:
            siblings.discard(connection)
            if not siblings:
                del self._by_certificate[connection.ref.certificate_id]

    # Turns.

    def _wake(self) -> None:
        if self._turn_due or self._loop is None:
            return
        self._turn_due = True
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Commit, then let go of the output that waited for it."""
        self._turn_due = False
        try:
            self._commit()
            self._batch.run_after()
        except Exception:
            log.exception("the end of a turn failed")
        dirty, self._dirty = self._dirty, {}
        for link in dirty:
            link.flush()

    def _commit(self) -> None:
        try:
            committed = self._batch.commit()
        except BatchFailed as failure:
            log.exception("%s: %d connections are closed", failure, len(failure.owners))
            self._exchange.pump_all()
            for connection in failure.owners:
                connection.fail()
            return
        self._exchange.pump_all()
        if committed is not None:
            if committed.policies_changed:
                self._authorizer.forget()
            if committed.outgoing:
                self.deliver(committed.outgoing)
