# SPDX-License-Identifier: Apache-2.0
"""A device made of parts that are not ours: paho-mqtt with a certificate issued through the API."""

from __future__ import annotations

import json
import queue
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager


@dataclass(frozen=True)
class Credentials:
    certificate: Path
    key: Path
    arn: str
    id: str


def register_device(judge: Judge, folder: Path, thing: str, policy: str = "edgeagent-device") -> Credentials:
    """A thing with an active certificate and a policy."""
    judge.iot.create_thing(thingName=thing)
    return issue(judge, folder, thing, policy)


def issue(judge: Judge, folder: Path, thing: str, policy: str) -> Credentials:
    """An active certificate attached to an existing thing."""
    made = judge.iot.create_keys_and_certificate(setAsActive=True)
    certificate, key = folder / f"{made['certificateId'][:8]}.pem", folder / f"{made['certificateId'][:8]}.key"
    certificate.write_text(made["certificatePem"])
    key.write_text(made["keyPair"]["PrivateKey"])
    judge.iot.attach_policy(policyName=policy, target=made["certificateArn"])
    judge.iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
    return Credentials(certificate, key, made["certificateArn"], made["certificateId"])


class Peer:
    """An MQTT 3.1.1 client. `messages` holds (topic, payload) as they come; `closed` is set when the link ends."""

    def __init__(self, fleet: FleetManager, client_id: str, credentials: Credentials, clean: bool = True) -> None:
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.connected = threading.Event()
        self.closed = threading.Event()
        self._subscribed = threading.Event()
        self.refused: Any = None
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=clean,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.tls_set(
            ca_certs=fleet.ready["ca"],
            certfile=str(credentials.certificate),
            keyfile=str(credentials.key),
            tls_version=ssl.PROTOCOL_TLS_CLIENT,
        )
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self.closed.set()
        client.on_message = lambda _c, _u, message: self.messages.put((message.topic, bytes(message.payload)))
        client.on_subscribe = lambda *_: self._subscribed.set()
        self.client = client
        self._fleet = fleet

    def _on_connect(self, _client: Any, _user: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self.refused = reason
        else:
            self.connected.set()

    def connect(self, timeout: float = 10) -> bool:
        """True once connected, False if the broker refuses or closes."""
        try:
            self.client.connect(self._fleet.ready["endpoint"], self._fleet.mqtt_port, keepalive=60)
        except (ssl.SSLError, OSError):
            return False
        self.client.loop_start()
        waiter = threading.Event()
        for _ in range(int(timeout * 50)):
            if self.connected.is_set() and not self.closed.is_set():
                return True
            if self.closed.is_set() or self.refused:
                return False
            waiter.wait(0.02)
        return False

    def subscribe(self, *filters: str) -> None:
        for one in filters:
            self._subscribed.clear()
            self.client.subscribe(one, qos=1)
            assert self._subscribed.wait(10), f"no SUBACK for {one}"

    def publish(self, topic: str, document: Any, qos: int = 1) -> paho.MQTTMessageInfo:
        payload = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.client.publish(topic, payload, qos=qos)

    def acknowledged(self, topic: str, document: Any, timeout: float = 10) -> bool:
        """Publish at QoS 1; True once the PUBACK is in."""
        info = self.publish(topic, document)
        try:
            info.wait_for_publish(timeout)
        except (RuntimeError, ValueError):
            return False
        return info.is_published()

    def request(self, topic: str, document: Any, timeout: float = 10) -> tuple[str, Any]:
        """Publish, and return the first message that arrives: (topic, decoded payload)."""
        self.publish(topic, document)
        answer, payload = self.messages.get(timeout=timeout)
        return answer, json.loads(payload)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def listen(fleet: FleetManager, judge: Judge, folder: Path, topic: str, name: str = "listener") -> Peer:
    """A stranger who may hear one topic."""
    allowed = [f"arn:aws:iot:*:*:{part}" for part in (f"client/{name}", f"topic/{topic}", f"topicfilter/{topic}")]
    statement = {"Effect": "Allow", "Action": ["iot:Connect", "iot:Subscribe", "iot:Receive"], "Resource": allowed}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    judge.iot.create_policy(policyName=name, policyDocument=json.dumps(document))
    peer = Peer(fleet, name, register_device(judge, folder, name, name))
    if not peer.connect():
        raise RuntimeError("the listener was not let in")
    peer.subscribe(topic)
    return peer
