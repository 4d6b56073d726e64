# SPDX-License-Identifier: Apache-2.0
"""The AWS Common Runtime (awscrt, of awsiotsdk) as a transport: MQTT 3.1.1 or 5, keys in a PKCS#11 token, ALPN.

The runtime has a thread of its own. It is held while the event loop handles a message, so that nothing else is received
meanwhile, as the built-in client does it. It reconnects by itself, which is not wanted here: each link is an object of
its own, and a lost one is told to stop.

What it cannot do, and what is done instead:
* MQTT 3.1.1: it acknowledges when its callback returns, whatever happened: a message whose handler failed, or was cut
  short by the end of the link, does not come again. With MQTT 5, the default here, it does.
* MQTT 3.1.1: it keeps the code of a refused CONNECT to itself: Refused("CONNACK").
* MQTT 3.1.1: it says DISCONNECT whenever it is stopped, so a cancelled `run` leaves no will.
* MQTT 5: `close` overtakes acknowledgements that are not yet written; their messages come again.
* It numbers its packets anew for each link: a publish of an earlier link is sent again without DUP.
* It gives messages whole: the receive cap protects handlers, not memory (MQTT 5: the server is told 256 KiB).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Callable
from typing import Any

from awscrt import exceptions, http, io, mqtt, mqtt5

from edgeagent.compat import exc_text, read_file
from edgeagent.errors import AgentError, ProtocolError, Refused, TransportError
from edgeagent.limits import LIMITS
from edgeagent.transports.base import DRAIN_LIMIT, IN_FLIGHT, SESSION_S, Message, Transport, refused

_HANDLER_S = 60  # the runtime's thread is not held longer than this
_FAREWELL_S = 3
_NEVER_S = 3600  # until the runtime would reconnect by itself
_PIN_BYTES = 256
_CLOSED = "AWS_ERROR_MQTT_UNEXPECTED_HANGUP"


class AwsTransport(Transport):
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
        self.address = (config.endpoint, config.port)
        self.client_id = client_id
        self.will = will
        # Half, as for Paho: a dead link is found within the keep-alive.
        self.ping_s = max(self.keepalive // 2, 2)
        self.ping_timeout_ms = self.ping_s * 500
        proxy = settings["proxy"]
        self.proxy = (
            http.HttpProxyOptions(proxy["host"], proxy["port"], connection_type=http.HttpProxyConnectionType.Tunneling)
            if proxy
            else None
        )
        group = io.EventLoopGroup(1)
        self.bootstrap = io.ClientBootstrap(group, io.DefaultHostResolver(group))
        self.socket_options = io.SocketOptions()
        self.socket_options.connect_timeout_ms = LIMITS.CONNECT_S * 1000
        self._files = (config.ca, cert, key)
        # The key in the token is the device's own; a claim has its key in a file.
        self._pkcs11 = settings["pkcs11"] if key == config.key else None
        self._alpn = settings["alpn"]
        self._make = _Link5 if settings["protocol"] == "5" else _Link3
        self._link: _Link3 | _Link5 | None = None
        self._loop: asyncio.AbstractEventLoop
        self._held: set[concurrent.futures.Future[None]] = set()

    # --- link

    async def _dial(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            context = io.ClientTlsContext(self._tls())
        except (OSError, ValueError, exceptions.AwsCrtError) as error:
            raise TransportError(f"credentials {', '.join(self._files)}: {_text(error)}") from None
        self._link = self._make(self, context)
        self._link.start()

    def _tls(self) -> io.TlsContextOptions:
        """The credentials are read each time: they may have been renewed."""
        ca, cert, key = self._files
        if self._pkcs11:
            pin = read_file(self._pkcs11["pin_file"], _PIN_BYTES)
            if pin is None:
                raise OSError(f"{self._pkcs11['pin_file']} is missing or too large")
            options = io.TlsContextOptions.create_client_with_mtls_pkcs11(
                pkcs11_lib=io.Pkcs11Lib(file=self._pkcs11["library"]),
                user_pin=pin.decode().strip(),
                token_label=self._pkcs11["token"],
                private_key_label=self._pkcs11["label"],
                cert_file_path=cert,
            )
        else:
            options = io.TlsContextOptions.create_client_with_mtls_from_path(cert, key)
        options.override_default_trust_store_from_path(ca_filepath=ca)
        options.min_tls_ver = io.TlsVersion.TLSv1_2
        if self._alpn:
            options.alpn_list = [self._alpn]
        return options

    async def _farewell(self) -> None:
        link = self._link
        if link:
            stopped = link.stop(True)
            self._release()
            await asyncio.wait([asyncio.wrap_future(stopped)], timeout=_FAREWELL_S)
            self._link = None

    async def _shut(self) -> None:
        link, self._link = self._link, None
        self._release()
        if link:
            link.stop(False)

    def _release(self) -> None:
        for future in list(self._held):
            if not future.done():
                future.set_result(None)

    def _explain(self, error: Exception) -> str:
        text = _text(error)
        if not self.connected and _CLOSED in text:
            return "closed by the server: certificate?"
        return ("link: " if self.connected else "connect to {}:{}: ".format(*self.address)) + text

    # --- from the runtime's thread

    def soon(self, link: _Link3 | _Link5, function: Callable[..., None], *arguments: Any) -> None:
        """Call in the event loop, unless `link` is no longer the one that counts."""

        def call() -> None:
            if link is self._link:
                function(*arguments)

        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the loop has ended, and with it everybody who waited

    def failed(self, link: _Link3 | _Link5, error: Exception) -> None:
        """There is no link, or no longer."""
        self.soon(link, self._fail, error)

    def established(self, link: _Link3 | _Link5, present: bool) -> None:
        """The server has accepted the session."""
        self.soon(link, self._established, present)

    def hold(
        self, link: _Link3 | _Link5, topic: str, payload: bytes, qos: int, acknowledge: Callable[[], None] | None = None
    ) -> None:
        """Wait until the event loop has handled a message; `acknowledge` is called there if it may be."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._held.add(future)

        def settle(handled: bool) -> None:
            if not future.done():
                if handled and acknowledge:
                    acknowledge()
                future.set_result(None)

        self.soon(link, self._arrived, Message(topic, payload, qos, settle))
        try:
            if link is self._link:  # a lost link releases those it knew when it ended
                future.result(_HANDLER_S)
        except concurrent.futures.TimeoutError:
            pass
        finally:
            self._held.discard(future)

    def answer(
        self,
        link: _Link3 | _Link5,
        key: int | str | None,
        future: concurrent.futures.Future[Any],
        read: Callable[[Any], Any],
    ) -> None:
        """End the exchange of `key` with read(result) once the operation is over. A lost link ends it elsewhere."""

        def ended(over: concurrent.futures.Future[Any]) -> None:
            error = over.exception()
            if error is None:
                self.soon(link, self.done, key, read(over.result()))
            elif key is not None:
                self.soon(link, self._undone, key, error)

        future.add_done_callback(ended)

    def _undone(self, key: int | str, error: Exception) -> None:
        for entry in self._open:
            if entry.key == key and entry.kept and not isinstance(error, AgentError):
                return  # it waits for the next link, or for its time-out
        self.done(key, error if isinstance(error, AgentError) else TransportError(self._explain(error)))

    # --- sending

    def _publish(self, key: int | str | None, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        link = self._alive()
        self.answer(link, key, link.publish(topic, payload, qos, retain), link.published)

    def _subscribe(self, key: int | str, pairs: list[tuple[str, int]]) -> None:
        link = self._alive()
        self.answer(link, key, link.subscribe(pairs), lambda codes: codes)

    def _unsubscribe(self, key: int | str, filters: list[str]) -> None:
        link = self._alive()
        self.answer(link, key, link.unsubscribe(filters), lambda _: None)

    def _alive(self) -> _Link3 | _Link5:
        if self._link is None:
            raise self._reason()
        return self._link


class _Link3:
    """One MQTT 3.1.1 link."""

    def __init__(self, owner: AwsTransport, context: io.ClientTlsContext) -> None:
        self._owner = owner
        will = owner.will and mqtt.Will(owner.will[0], mqtt.QoS.AT_LEAST_ONCE, owner.will[1].encode(), True)
        self._connection = mqtt.Connection(
            mqtt.Client(owner.bootstrap, context),
            *owner.address,
            owner.client_id,
            clean_session=owner.clean,
            on_connection_interrupted=self._interrupted,
            reconnect_min_timeout_secs=_NEVER_S,
            reconnect_max_timeout_secs=_NEVER_S,
            keep_alive_secs=owner.ping_s,
            ping_timeout_ms=owner.ping_timeout_ms,
            will=will,
            socket_options=owner.socket_options,
            proxy_options=owner.proxy,
            disable_metrics=True,
        )
        self._connection.on_message(self._message)

    def start(self) -> None:
        self._connection.connect().add_done_callback(self._connected)

    def _connected(self, future: concurrent.futures.Future[dict[str, bool]]) -> None:
        error = future.exception()
        if error is None:
            self._owner.established(self, future.result()["session_present"])
        elif getattr(error, "name", "") == "AWS_ERROR_MQTT_PROTOCOL_ERROR":  # any other return code than 0
            self._owner.failed(self, Refused("CONNACK", "refused"))
        else:
            self._owner.failed(self, error)  # type: ignore[arg-type]

    def _interrupted(self, connection: Any, error: Exception, **_: Any) -> None:
        connection.disconnect()
        self._owner.failed(self, error)

    def _message(self, topic: str, payload: bytes, dup: bool, qos: mqtt.QoS, retain: bool, **_: Any) -> None:
        self._owner.hold(self, topic, payload, qos.value)

    def stop(self, polite: bool) -> Any:
        stopped = self._connection.disconnect()
        stopped.add_done_callback(self._dropped)
        return stopped

    def _dropped(self, _: Any) -> None:
        self._connection = None  # it holds our methods where Python's collector does not see them

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> Any:
        return self._connection.publish(topic, payload, mqtt.QoS(qos), retain)[0]

    def published(self, result: Any) -> None:
        """PUBACK has no reason in MQTT 3.1.1."""

    def subscribe(self, pairs: list[tuple[str, int]]) -> Any:
        """One SUBSCRIBE for each filter: the runtime takes no more."""
        futures = [self._connection.subscribe(name, mqtt.QoS(qos))[0] for name, qos in pairs]

        def code(future: concurrent.futures.Future[Any]) -> int:
            return 128 if isinstance(future.exception(), mqtt.SubscribeError) else int(future.result()["qos"])

        return _all(futures, code)

    def unsubscribe(self, filters: list[str]) -> Any:
        return _all([self._connection.unsubscribe(name)[0] for name in filters], lambda future: future.result())


class _Link5:
    """One MQTT 5 link."""

    def __init__(self, owner: AwsTransport, context: io.ClientTlsContext) -> None:
        self._owner = owner
        self._stopped: concurrent.futures.Future[None] = concurrent.futures.Future()
        will = owner.will and mqtt5.PublishPacket(owner.will[1].encode(), mqtt5.QoS.AT_LEAST_ONCE, True, owner.will[0])
        behavior = mqtt5.ClientSessionBehaviorType
        self._client = mqtt5.Client(
            mqtt5.ClientOptions(
                *owner.address,
                bootstrap=owner.bootstrap,
                socket_options=owner.socket_options,
                tls_ctx=context,
                http_proxy_options=owner.proxy,
                connect_options=mqtt5.ConnectPacket(
                    keep_alive_interval_sec=owner.ping_s,
                    client_id=owner.client_id,
                    session_expiry_interval_sec=0 if owner.clean else SESSION_S,
                    receive_maximum=IN_FLIGHT,
                    maximum_packet_size=DRAIN_LIMIT,
                    will=will,
                ),
                session_behavior=behavior.CLEAN if owner.clean else behavior.REJOIN_ALWAYS,
                offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
                min_reconnect_delay_ms=_NEVER_S * 1000,
                max_reconnect_delay_ms=_NEVER_S * 1000,
                ping_timeout_ms=owner.ping_timeout_ms,
                connack_timeout_ms=LIMITS.CONNECT_S * 1000,
                on_publish_callback_fn=self._message,
                on_lifecycle_event_stopped_fn=self._dropped,
                on_lifecycle_event_connection_success_fn=self._connected,
                on_lifecycle_event_connection_failure_fn=self._refused,
                on_lifecycle_event_disconnection_fn=self._lost,
                disable_metrics=True,
            )
        )

    def start(self) -> None:
        self._client.start()

    def _connected(self, data: mqtt5.LifecycleConnectSuccessData) -> None:
        self._owner.established(self, data.connack_packet.session_present)

    def _refused(self, data: mqtt5.LifecycleConnectFailureData) -> None:
        self._client.stop()
        packet = data.connack_packet
        error = refused(int(packet.reason_code)) if packet else data.exception
        if getattr(error, "name", "") == "AWS_ERROR_MQTT5_DECODE_PROTOCOL_ERROR":
            error = ProtocolError("bad CONNACK: a server without MQTT 5?")
        self._owner.failed(self, error)

    def _lost(self, data: mqtt5.LifecycleDisconnectData) -> None:
        self._client.stop()
        packet = data.disconnect_packet
        error = TransportError(f"disconnected by the server: {packet.reason_code!r}") if packet else data.exception
        self._owner.failed(self, error)

    def _message(self, data: mqtt5.PublishReceivedData) -> None:
        packet = data.publish_packet
        control = data.acquire_publish_acknowledgement_control
        acknowledge = control and functools.partial(self._client.invoke_publish_acknowledgement, control())
        self._owner.hold(self, packet.topic, packet.payload, packet.qos.value, acknowledge)

    def stop(self, polite: bool) -> Any:
        if not self._stopped.done():
            self._client.stop(mqtt5.DisconnectPacket() if polite else None)
        return self._stopped

    def _dropped(self, _: mqtt5.LifecycleStoppedData) -> None:
        self._client = None  # it holds our methods where Python's collector does not see them
        if not self._stopped.done():
            self._stopped.set_result(None)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> Any:
        return self._client.publish(mqtt5.PublishPacket(payload, mqtt5.QoS(qos), retain, topic))

    def published(self, result: mqtt5.PublishCompletionData) -> Refused | None:
        code = result.puback.reason_code
        return Refused(f"PUBACK_{int(code)}", code.name) if code is not None and code >= 128 else None

    def subscribe(self, pairs: list[tuple[str, int]]) -> Any:
        subscriptions = [mqtt5.Subscription(name, mqtt5.QoS(qos)) for name, qos in pairs]
        future = self._client.subscribe(mqtt5.SubscribePacket(subscriptions))
        return _all([future], lambda over: over.result().reason_codes, flat=True)

    def unsubscribe(self, filters: list[str]) -> Any:
        return self._client.unsubscribe(mqtt5.UnsubscribePacket(filters))


def _all(
    futures: list[concurrent.futures.Future[Any]],
    read: Callable[[concurrent.futures.Future[Any]], Any],
    flat: bool = False,
) -> concurrent.futures.Future[Any]:
    """A future of [read(future), …], or of read's own list (flat); of the first exception if one has it."""
    result: concurrent.futures.Future[Any] = concurrent.futures.Future()
    left = set(futures)

    def ended(future: concurrent.futures.Future[Any]) -> None:
        left.discard(future)
        if left or result.done():
            return
        try:
            found = [read(each) for each in futures]
            result.set_result(found[0] if flat else found)
        except Exception as error:
            result.set_exception(error)

    for future in futures:
        future.add_done_callback(ended)
    return result


def _text(error: BaseException) -> str:
    """An error of the runtime by its name: the messages are vague."""
    return f"{error.name}: {error.message}" if isinstance(error, exceptions.AwsCrtError) else exc_text(error)
