# SPDX-License-Identifier: Apache-2.0
"""paho-mqtt as a transport: MQTT 3.1.1 or 5, HTTP and SOCKS proxies, WebSocket.

Paho's socket is driven from the event loop (loop_read, loop_write, loop_misc); only what Paho does blocking, from name
resolution to the handshakes of TLS, proxy and WebSocket, runs in a thread of asyncio's pool. A cancelled connect leaves
that thread to its own time-outs, and the next connect waits for it.

Paho keeps unacknowledged publishes itself and sends them again with DUP and their packet id; `drop_out_messages`
(Paho 2.2) takes them back if the server lost the session. Paho finds a dead link within twice its keep-alive, so it is
given half of ours.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeagent.errors import AgentError, ConfigError, ProtocolError, Refused, TransportError
from edgeagent.transports.base import DRAIN_LIMIT, IN_FLIGHT, SESSION_S, Message, Transport, refused

SUPPORTED = hasattr(mqtt.Client, "drop_out_messages")
_STEP_S = 10  # each of Paho's blocking steps
_FAREWELL_S = 3


class _Context(ssl.SSLContext):
    """Checks `server_hostname`, where Paho would check the address it connects to."""

    server_hostname: str

    def wrap_socket(self, sock: Any, *args: Any, **options: Any) -> ssl.SSLSocket:
        options["server_hostname"] = self.server_hostname
        return super().wrap_socket(sock, *args, **options)


class _LastError(logging.Handler):
    """Paho only logs why a link ended."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class PahoTransport(Transport):
    """See the module."""

    def __init__(
        self,
        config: Any,
        client_id: str,
        cert: str,
        key: str,
        will: tuple[str, str] | None,
        clean: bool,
        settings: dict[str, Any],
    ) -> None:
        """settings: of transports.settings()."""
        super().__init__(config.keepalive, clean)
        self._address = (config.endpoint, config.port)
        self._files = (config.ca, cert, key)
        self._five = settings["protocol"] == "5"
        self._context = _Context(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED, host name checked
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.server_hostname = config.server_hostname
        if settings["alpn"]:
            self._context.set_alpn_protocols([settings["alpn"]])
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if self._five else clean,
            protocol=mqtt.MQTTv5 if self._five else mqtt.MQTTv311,
            transport="websockets" if settings["websocket"] else "tcp",
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.tls_set_context(self._context)
        if settings["websocket"]:
            client.ws_set_options(settings["path"])
        if settings["proxy"]:
            _use_proxy(client, settings["proxy"])
        if will:
            client.will_set(will[0], will[1], 1, True)
        client.connect_timeout = _STEP_S
        client.max_inflight_messages_set(0)  # Transport counts; a publish given up on must not hold up the others
        self._last = _LastError()
        logger = logging.Logger("paho", logging.WARNING)  # outside the application's tree
        logger.addHandler(self._last)
        client.enable_logger(logger)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = lambda c, u, mid, reason, p: self._answered(mid, _failure(reason))
        client.on_subscribe = lambda c, u, mid, codes, p: self._answered(mid, [code.value for code in codes])
        client.on_unsubscribe = lambda c, u, mid, codes, p: self._answered(mid, None)
        client.on_socket_register_write = lambda c, u, sock: self._watch_writing(True)
        client.on_socket_unregister_write = lambda c, u, sock: self._watch_writing(False)
        client.on_socket_close = lambda c, u, sock: self._unwatch()
        self._paho = client
        self._loop: asyncio.AbstractEventLoop
        self._dialing: asyncio.Future[None] | None = None
        self._fd: int | None = None  # watched by the loop
        self._gone = asyncio.Event()  # the socket is closed
        self._trusted = False
        self._mids: dict[int, int | str] = {}  # packet id -> key of the exchange

    # --- link

    async def _dial(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._dialing:
            await asyncio.wait([self._dialing])
        self._last.text = ""
        self._dialing = self._loop.run_in_executor(None, self._connect)
        await asyncio.shield(self._dialing)
        sock = self._paho.socket()
        if sock is None:
            raise TransportError("link: closed")
        self._gone.clear()
        self._fd = sock.fileno()
        self._loop.add_reader(self._fd, self._readable)
        self._watch_writing(self._paho.want_write())

    def _connect(self) -> None:
        """Blocking, in a thread. The credentials are read each time: they may have been renewed."""
        try:
            if not self._trusted:
                self._context.load_verify_locations(cafile=self._files[0])
                self._trusted = True
            self._context.load_cert_chain(*self._files[1:])
        except (OSError, ValueError) as error:
            raise TransportError(f"credentials {', '.join(self._files)}: {error}") from None
        options: dict[str, Any] = {}
        if self._five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0 if self.clean else SESSION_S
            properties.ReceiveMaximum = IN_FLIGHT
            properties.MaximumPacketSize = DRAIN_LIMIT
            options = {"clean_start": self.clean, "properties": properties}
        try:
            self._paho.connect(*self._address, keepalive=max(self.keepalive // 2, 1), **options)
        except (OSError, ValueError, mqtt.WebsocketConnectionError) as error:
            raise TransportError("connect to {}:{}: {}".format(*self._address, error)) from None

    async def _farewell(self) -> None:
        self._paho.disconnect()
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._gone.wait()
        except TimeoutError:
            pass

    async def _shut(self) -> None:
        self._unwatch()
        if self._dialing and not self._dialing.done():
            self._dialing.add_done_callback(self._abandon)
        else:
            self._abandon(self._dialing)

    def _abandon(self, dialed: asyncio.Future[None] | None) -> None:
        if dialed and not dialed.cancelled():
            dialed.exception()  # connect() has reported it, or nobody waits for it any more
        sock = self._paho.socket()
        if sock is not None:
            sock.close()

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._fail(refused(reason.value))
            return
        if not flags.session_present:
            client.drop_out_messages()
            self._mids.clear()
        self._established(flags.session_present)

    def _again(self, entry: Any) -> None:
        """Paho sends it itself, after on_connect."""

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._fail(TransportError(f"disconnected by the server: {reason}"))
        elif self._last.text or self.connected:
            self._fail(TransportError(f"link: {self._last.text or reason}"))
        else:
            self._fail(TransportError("closed by the server: certificate?"))

    # --- the socket

    def _watch_writing(self, wanted: bool) -> None:
        if self._fd is not None:
            if wanted:
                self._loop.add_writer(self._fd, self._writable)
            else:
                self._loop.remove_writer(self._fd)

    def _unwatch(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = None
            self._gone.set()

    def _writable(self) -> None:
        try:
            self._paho.loop_write()
        except Exception as error:
            self._broken(error)

    def _readable(self) -> None:
        """Read what TLS holds: the loop only knows about the socket. A message stops it until it is handled."""
        try:
            while self._fd is not None and self._inbox.empty():
                code = self._paho.loop_read()
                if code == MQTTErrorCode.MQTT_ERR_PROTOCOL:
                    self._broken(ProtocolError("bad packet"))
                # Paho reads a packet whole, of any size, in steps of 100 TLS records; no public way stops it.
                if self._paho._in_packet["remaining_length"] > DRAIN_LIMIT:
                    self._broken(ProtocolError("bad length"))
                sock: Any = self._paho.socket()
                if sock is None or not sock.pending():
                    return
            if self._fd is not None:
                self._loop.remove_reader(self._fd)
        except Exception as error:  # Paho's decoders raise what struct and codecs raise
            self._broken(error if isinstance(error, OSError | AgentError) else ProtocolError("bad packet"))

    def _broken(self, error: Exception) -> None:
        self._fail(error)
        self._unwatch()

    def _resume(self) -> None:
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._readable)
            self._loop.call_soon(self._readable)

    def _tick(self) -> None:
        self._paho.loop_misc()

    # --- packets

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if len(message.payload) > DRAIN_LIMIT:
            raise ProtocolError("bad length")
        fd, mid, qos = self._fd, message.mid, message.qos

        def settle(handled: bool) -> None:
            if handled and qos and self.connected and fd == self._fd:
                self._paho.ack(mid, qos)

        self._arrived(Message(message.topic, message.payload, qos, settle))

    def _answered(self, mid: int, answer: Any) -> None:
        key = self._mids.pop(mid, None)
        if key is not None:
            self.done(key, answer)

    def _sent(self, key: int | str | None, code: int, mid: int | None) -> None:
        if code:
            raise TransportError(f"link: {mqtt.error_string(MQTTErrorCode(code))}")
        if key is not None and mid is not None:
            self._mids[mid] = key

    def _publish(self, key: int | str | None, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        info = self._paho.publish(topic, payload, qos, retain)
        self._sent(key, info.rc, info.mid)

    def _subscribe(self, key: int | str, pairs: list[tuple[str, int]]) -> None:
        self._sent(key, *self._paho.subscribe(pairs))

    def _unsubscribe(self, key: int | str, filters: list[str]) -> None:
        self._sent(key, *self._paho.unsubscribe(filters))


def _failure(reason: Any) -> AgentError | None:
    """Of a PUBACK: MQTT 5 has codes there."""
    return Refused(f"PUBACK_{reason.value}", str(reason)) if reason.is_failure else None


def _use_proxy(client: mqtt.Client, proxy: dict[str, Any]) -> None:
    try:
        import socks
    except ImportError:
        raise ConfigError("transport: proxy", "needs the package PySocks") from None
    kinds = {"http": socks.HTTP, "socks4": socks.SOCKS4, "socks5": socks.SOCKS5}
    client.proxy_set(proxy_type=kinds[proxy["type"]], proxy_addr=proxy["host"], proxy_port=proxy["port"])
