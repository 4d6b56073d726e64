# SPDX-License-Identifier: Apache-2.0
"""One TLS socket: bytes to packets, packets to bytes, silence, congestion and closing. Knows nothing of sessions."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import Protocol

from edgefleet.broker.limits import Limits
from edgefleet.broker.packets import Decoder, MalformedPacket, Packet
from edgefleet.broker.presence import CLIENT_ERROR, CONNECTION_LOST, KEEP_ALIVE_TIMEOUT, SERVER_ERROR

log = logging.getLogger(__name__)


class Handler(Protocol):
    """The other side of a Link."""

    def packet(self, packet: Packet) -> None: ...

    def terminate(self, reason: str) -> None:
        """The link is or must be closed; `reason` is a disconnectReason."""

    def writable(self) -> None:
        """The peer has caught up."""


class Owner(Protocol):
    """Whoever accepted the socket."""

    def link_made(self, link: Link) -> Handler: ...

    def link_dirty(self, link: Link) -> None:
        """There is output, or the link wants to close: call flush() at the end of this turn."""

    def link_lost(self, link: Link) -> None: ...


class Link(asyncio.Protocol):
    """Output is collected and leaves with flush(), once a turn of the event loop, as one TLS record."""

    def __init__(self, owner: Owner, limits: Limits) -> None:
        self._owner = owner
        self._handler: Handler | None = None
        self._limits = limits
        self._decoder = Decoder(limits.packet_bytes)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._paused = False
        self._closing = False
        self._allowed_silence = limits.connect_s
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.certificate_der: bytes | None = None
        self.source_ip = ""
        self.source_port = 0

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=self._limits.write_buffer)
        peer = transport.get_extra_info("peername")
        if peer:
            self.source_ip, self.source_port = peer[0], peer[1]
        # Nagle's algorithm against a peer's delayed ACK costs 40 ms a request.
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        self.certificate_der = tls.getpeercert(binary_form=True) if tls is not None else None
        self._handler = self._owner.link_made(self)
        self.watch(self._limits.connect_s)

    def data_received(self, data: bytes) -> None:
        if self._closing or self._handler is None:
            return
        self._decoder.feed(data)
        try:
            while not self._closing and (packet := self._decoder.next()) is not None:
                self._heard = asyncio.get_running_loop().time()
                self._handler.packet(packet)
        except MalformedPacket as error:
            log.info("%s:%d sent a malformed packet: %s", self.source_ip, self.source_port, error)
            self._handler.terminate(CLIENT_ERROR)
        except Exception:
            log.exception("a packet of %s:%d could not be handled", self.source_ip, self.source_port)
            self._handler.terminate(SERVER_ERROR)

    def pause_writing(self) -> None:
        # Whoever does not read is not read from, or its acknowledgements would pile up here. If it lasts, the
        # keep-alive ends it.
        self._paused = True
        if self._transport is not None and not self._closing:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()
            if self._handler is not None:
                self._handler.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handler is not None:
            self._handler.terminate(CONNECTION_LOST)
        self._stop()
        self._transport = None
        self._owner.link_lost(self)

    # Called by the handler and the broker.

    @property
    def congested(self) -> bool:
        """The peer reads slower than it is sent to."""
        return self._paused or self._out_bytes > self._limits.write_buffer

    def send(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._out:
            self._owner.link_dirty(self)
        self._out.append(data)
        self._out_bytes += len(data)

    def flush(self) -> None:
        """Let the output go; then close the socket if close() was called."""
        if self._transport is None:
            return
        if self._out:
            data = b"".join(self._out)
            was_full = self.congested
            self.discard_output()
            self._transport.write(data)
            if was_full and not self._paused and not self._closing and self._handler is not None:
                self._handler.writable()
        if self._closing:
            self._transport.close()

    def watch(self, seconds: float) -> None:
        """From now on the peer may be silent for `seconds`."""
        loop = asyncio.get_running_loop()
        self._allowed_silence = seconds
        self._heard = loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._judge_silence)

    def _judge_silence(self) -> None:
        # The timer is not moved with every packet; it looks at the last one when it fires.
        loop = asyncio.get_running_loop()
        due = self._heard + self._allowed_silence
        if loop.time() < due:
            self._timer = loop.call_at(due, self._judge_silence)
        elif self._handler is not None:
            self._handler.terminate(KEEP_ALIVE_TIMEOUT)

    @property
    def closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Look at nothing that still arrives; close with the next flush(), so that a last word waits for the commit."""
        if not self._closing:
            self._stop()
            self._owner.link_dirty(self)

    def discard_output(self) -> None:
        """Forget what was not sent."""
        self._out.clear()
        self._out_bytes = 0

    def abort(self) -> None:
        """Cut the socket."""
        self._stop()
        if self._transport is not None:
            self._transport.abort()

    def _stop(self) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
