# SPDX-License-Identifier: Apache-2.0
"""One client, MQTT 3.1.1 with AWS IoT's rules: what each packet does, and what a denial looks like.

Source: aws-iot-protocol.md sections 2.2 to 2.8 and 12.1; MQTT 3.1.1 chapter 3.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from edgefleet.broker import packets, presence, rules
from edgefleet.broker.authorizer import Authorizer, ConnectionRef, Denied, Principal
from edgefleet.broker.exchange import Exchange
from edgefleet.broker.limits import Limits
from edgefleet.broker.link import Link
from edgefleet.broker.presence import Facts, Presence
from edgefleet.broker.session import Session
from edgefleet.messages import Request

log = logging.getLogger(__name__)
_serials = itertools.count(1)

HandleReserved = Callable[[Request, ConnectionRef], None]


@dataclass(frozen=True)
class Services:
    """What every connection of a broker shares."""

    exchange: Exchange
    presence: Presence
    authorizer: Authorizer
    handle_reserved: HandleReserved
    limits: Limits
    established: Callable[[Connection], None]
    ended: Callable[[Connection], None]


@dataclass(frozen=True)
class ConnectionInfo:
    """A live connection for status and GetConnection; times in epoch milliseconds, keep-alive in seconds."""

    ref: ConnectionRef
    source_port: int
    session_id: str
    clean_session: bool
    keep_alive: int
    connected_ms: int
    subscriptions: dict[str, int]
    inflight: int


class _Refused(Exception):
    """The client broke a rule and is disconnected with `reason`; the text is for the log."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Connection:
    """From the TLS handshake to the end of the socket. Established = its CONNECT was accepted."""

    def __init__(self, link: Link, services: Services) -> None:
        self._link = link
        self._services = services
        self._ended = False
        self._session: Session | None = None
        self._principal: Principal | None = None
        self._facts: Facts | None = None
        self.ref: ConnectionRef | None = None  # None until established

    # As the Handler of its Link.

    def packet(self, packet: packets.Packet) -> None:
        try:
            self._packet(packet)
        except _Refused as refusal:
            log.info("client %s is disconnected: %s", self.ref.client_id if self.ref else "?", refusal)
            self.terminate(refusal.reason)

    def _packet(self, packet: packets.Packet) -> None:
        if self._session is None:
            if not isinstance(packet, packets.Connect):
                raise _Refused(presence.CLIENT_ERROR, "the first packet is not a CONNECT")  # MQTT 3.1.0-1
            self._connect(packet)
            return
        match packet:
            case packets.Publish():
                self._publish(packet)
            case packets.Puback(packet_id):
                self._services.exchange.acknowledged(self._session, packet_id)
            case packets.Subscribe():
                self._subscribe(packet)
            case packets.Unsubscribe():
                self._unsubscribe(packet)
            case packets.Pingreq():
                self._link.send(packets.PINGRESP)
            case packets.Disconnect():
                self.terminate(presence.CLIENT_INITIATED)
            case packets.Connect():
                raise _Refused(presence.CLIENT_ERROR, "a second CONNECT")  # MQTT 3.1.0-2

    def writable(self) -> None:
        if self._session is not None and not self._ended:
            self._services.exchange.pump(self._session)

    def terminate(self, reason: str) -> None:
        """End the connection with a disconnectReason; the will is published unless the client said goodbye."""
        if self._ended:
            return
        self._ended = True
        self._link.close()
        session, facts = self._session, self._facts
        if session is None or facts is None:
            return
        self._services.ended(self)
        self._services.exchange.close(session)
        self._services.presence.disconnected(facts, reason)
        if facts.will is not None and reason != presence.CLIENT_INITIATED:
            will = facts.will
            self._services.exchange.publish(will.topic, will.payload, will.qos, will.retain)

    def fail(self) -> None:
        """Something this connection waits for could not be stored: end it without acknowledging anything."""
        self._link.discard_output()
        self.terminate(presence.SERVER_ERROR)

    # As the Outlet of its Session.

    @property
    def congested(self) -> bool:
        return self._link.congested

    def send(self, data: bytes) -> None:
        self._link.send(data)

    def may_receive(self, topic: str) -> bool:
        """iot:Receive; a denied message is silently not delivered (section 2.8). Never raises: the publisher is not to
        suffer from a subscriber.
        """
        try:
            return self._allows("iot:Receive", f"topic/{topic}")
        except Exception:
            log.exception("iot:Receive of %s could not be judged", topic)
            return False

    # For the broker.

    def reply(self, topic: str, payload: bytes, qos: int) -> None:
        """Answer a request of this connection, subscribed or not (section 0, rule 1)."""
        if self._session is None or self._ended:
            return
        if self.may_receive(topic):
            self._session.offer(topic, payload, qos)
        else:
            log.warning("client %s may not receive the answer on %s", self._session.client_id, topic)

    def info(self) -> ConnectionInfo:
        """Of an established connection."""
        assert self.ref is not None and self._facts is not None and self._session is not None
        facts = self._facts
        return ConnectionInfo(
            self.ref,
            facts.source_port,
            facts.session_id,
            facts.clean_session,
            facts.keep_alive,
            facts.connected_ms,
            dict(self._session.subscriptions),
            self._session.inflight(),
        )

    # Packets.

    def _connect(self, packet: packets.Connect) -> None:
        limits = self._services.limits
        if packet.level != packets.LEVEL_311:
            return self._refuse_connect(packets.CONNACK_PROTOCOL_VERSION)
        client_id = packet.client_id
        if not client_id and packet.clean:
            client_id = str(uuid.uuid4())
        if not client_id or len(client_id.encode()) > limits.client_id_bytes:
            return self._refuse_connect(packets.CONNACK_IDENTIFIER)
        will = packet.will
        if will is not None and will.qos > 1:
            raise _Refused(presence.CLIENT_ERROR, "a will with QoS 2")
        try:
            principal = self._authorize(packet, client_id)
        except Denied as denied:
            log.info("CONNECT of %s from %s is denied: %s", client_id, self._link.source_ip, denied)
            certificate_id = hashlib.sha256(self._link.certificate_der or b"").hexdigest()
            self._services.presence.connect_failed(client_id, certificate_id, self._link.source_ip)
            return self._refuse_connect(packets.CONNACK_NOT_AUTHORIZED)
        except Exception:
            log.exception("CONNECT of %s could not be judged", client_id)
            return self._refuse_connect(packets.CONNACK_UNAVAILABLE)
        self._establish(packet, client_id, principal)

    def _refuse_connect(self, code: int) -> None:
        self._link.send(packets.connack(code))
        self.terminate(presence.AUTH_ERROR)

    def _authorize(self, packet: packets.Connect, client_id: str) -> Principal:
        """Raises Denied."""
        if self._link.certificate_der is None:
            raise Denied("no client certificate")
        will = packet.will
        principal = self._services.authorizer.connect(
            self._link.certificate_der,
            client_id,
            self._link.source_ip,
            persistent=not packet.clean,
            will_topic=None if will is None else will.topic,
        )
        if will is not None:
            problem = rules.topic_problem(will.topic, self._services.limits)
            if problem is not None or rules.publish_kind(will.topic) is not rules.Kind.ORDINARY:
                raise Denied(f"the will's topic is not allowed: {problem or 'reserved'}")
            if not _may_publish(principal, will.topic, will.retain):
                raise Denied(f"the will on {will.topic} is not permitted")
        return principal

    def _establish(self, packet: packets.Connect, client_id: str, principal: Principal) -> None:
        services, link = self._services, self._link
        older = services.exchange.sessions.get(client_id)
        if older is not None and older.outlet is not None:
            older.outlet.terminate(presence.DUPLICATE_CLIENT_ID)
        version = services.presence.next_version(client_id)
        self._principal = principal
        session, present = services.exchange.open(
            client_id, packet.clean, self, lambda name: principal.allows("iot:Subscribe", f"topicfilter/{name}")
        )
        self._session = session
        keep_alive = _effective_keep_alive(packet.keep_alive, services.limits)
        link.watch(keep_alive * services.limits.keep_alive_grace)
        self._facts = Facts(
            client_id=client_id,
            thing_name=principal.thing_name,
            certificate_id=principal.certificate_id,
            session_id=session.session_id,
            source_ip=link.source_ip,
            source_port=link.source_port,
            keep_alive=int(keep_alive),
            clean_session=packet.clean,
            connected_ms=services.presence.now_ms(),
            version=version,
            will=packet.will,
        )
        self.ref = ConnectionRef(
            next(_serials), client_id, principal.certificate_id, principal.thing_name, link.source_ip
        )
        services.established(self)
        # CONNACK is the first thing the peer gets, before any message that the event below may lead to.
        link.send(packets.connack(packets.CONNACK_ACCEPTED, present))
        services.presence.connected(self._facts, self)

    def _publish(self, packet: packets.Publish) -> None:
        assert self._principal is not None and self.ref is not None
        services, topic = self._services, packet.topic
        problem = rules.topic_problem(topic, services.limits)
        if problem is not None:
            raise _Refused(presence.CLIENT_ERROR, f"PUBLISH: {problem}")
        if packet.qos > 1:
            raise _Refused(presence.CLIENT_ERROR, "PUBLISH with QoS 2")
        if len(packet.payload) > services.limits.payload_bytes:
            raise _Refused(presence.CLIENT_ERROR, f"PUBLISH: more than {services.limits.payload_bytes} bytes")
        kind = rules.publish_kind(topic)
        if kind is rules.Kind.FORBIDDEN or (packet.retain and kind is rules.Kind.RESERVED):
            raise _Refused(presence.CLIENT_ERROR, f"PUBLISH to the reserved topic {topic}")
        if not _may_publish(self._principal, topic, packet.retain):
            raise _Refused(presence.CLIENT_ERROR, f"PUBLISH to {topic} is not permitted")  # section 2.8
        if kind is rules.Kind.RESERVED:
            certificate_id = self._principal.certificate_id
            request = Request(topic, packet.payload, self.ref.client_id, certificate_id, packet.qos)
            services.handle_reserved(request, self.ref)
        else:
            services.exchange.publish(topic, packet.payload, packet.qos, packet.retain, self)
        if packet.qos:
            self._link.send(packets.puback(packet.packet_id))

    def _subscribe(self, packet: packets.Subscribe) -> None:
        assert self._session is not None and self._principal is not None and self._facts is not None
        limits, session = self._services.limits, self._session
        if len(packet.filters) > limits.filters_per_subscribe:
            self._link.send(packets.suback(packet.packet_id, [packets.SUBACK_FAILURE] * len(packet.filters)))
            return
        for name, qos in packet.filters:
            problem = rules.filter_problem(name, limits)
            if problem is None and qos > 1:
                problem = "QoS 2"
            if problem is None and not rules.may_subscribe(name):
                problem = "reserved"
            if problem is not None:
                raise _Refused(presence.CLIENT_ERROR, f"SUBSCRIBE to {name}: {problem}")
            if not self._allows("iot:Subscribe", f"topicfilter/{name}"):
                raise _Refused(presence.AUTH_ERROR, f"SUBSCRIBE to {name} is not permitted")
        codes: list[int] = []
        granted: dict[str, int] = {}
        for name, qos in packet.filters:
            new = name not in session.subscriptions and name not in granted
            if new and len(session.subscriptions.keys() | granted.keys()) >= limits.subscriptions:
                codes.append(packets.SUBACK_FAILURE)
            else:
                granted[name] = qos
                codes.append(qos)
        self._link.send(packets.suback(packet.packet_id, codes))
        if granted:
            self._services.exchange.subscribe(session, list(granted.items()), self)
            self._services.presence.subscriptions(self._facts, "subscribed", list(granted))

    def _unsubscribe(self, packet: packets.Unsubscribe) -> None:
        assert self._session is not None and self._facts is not None
        known = [name for name in dict.fromkeys(packet.filters) if name in self._session.subscriptions]
        self._link.send(packets.unsuback(packet.packet_id))
        if known:
            self._services.exchange.unsubscribe(self._session, known, self)
            self._services.presence.subscriptions(self._facts, "unsubscribed", known)

    def _allows(self, action: str, resource: str) -> bool:
        return self._principal is not None and self._principal.allows(action, resource)


def _may_publish(principal: Principal, topic: str, retain: bool) -> bool:
    resource = f"topic/{topic}"
    return principal.allows("iot:Publish", resource) and (not retain or principal.allows("iot:RetainPublish", resource))


def _effective_keep_alive(asked: int, limits: Limits) -> float:
    """Section 2.2: 0 behaves as the maximum."""
    if asked == 0:
        return limits.keep_alive_max
    return min(max(asked, limits.keep_alive_min), limits.keep_alive_max)
