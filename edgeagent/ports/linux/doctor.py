# SPDX-License-Identifier: Apache-2.0
"""`edgeagent doctor`: go the way to the service step by step, and name the first thing that is broken, in one line.

The steps, and the word a problem begins with: clock, identity, ca, certificate, DNS, TCP, TLS, MQTT, policy, topic.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from edgeagent import clock, topics
from edgeagent.compat import wait_for
from edgeagent.config import Config
from edgeagent.errors import AgentError, Refused, TransportError
from edgeagent.identity import Identity, known
from edgeagent.mqtt.rpc import Requests
from edgeagent.ports.linux import LinuxPort
from edgeagent.transports import make_client, settings

_CONNECT_S = 10
_ANSWER_S = 5
_CODES = {
    "CONNACK_2": "MQTT: the service does not take the client id {name}",
    "CONNACK_3": "MQTT: the service is not available",
    "CONNACK_5": "policy: iot:Connect is not allowed for client/{name}, or the certificate is not active",
}
# What OpenSSL says of the server's certificate (x509_txt.c), in words that name what to mend here.
_VERIFY = (
    ("not yet valid", "clock: the server's certificate is not valid yet at {now}"),
    ("has expired", "TLS: the server's certificate has expired, or the clock is ahead: {now}"),
    ("Hostname mismatch", "TLS: the server's certificate is not for {host} (server_hostname)"),
    ("IP address mismatch", "TLS: the server's certificate is not for {host} (server_hostname)"),
    ("local issuer certificate", "ca: {ca} did not sign the server's certificate"),
    ("self-signed certificate", "ca: {ca} did not sign the server's certificate"),
)

Tell = Callable[[str], None]


async def examine(config: Config, tell: Tell) -> str:
    """ "" if the service can be reached and used with this device's identity, else what is wrong.

    tell: called with each step that is well. With the claim certificate if there is no identity yet. A running agent
    with the same identity loses its connection for a moment, as the service allows one at a time.
    """
    tell("configuration")
    if clock.now() < clock.SET:
        return f"clock: is at {_now()}; certificates count as not yet valid"
    tell("clock")
    port = LinuxPort(config)
    identity = known(config, Identity(port.state_dir, port.pem).load())
    claim = identity is None
    if identity is None:
        if config.claim is None:
            return "identity: none is stored and there is no claim"
        identity = ("edgeagent-doctor", config.claim["certificate"], config.claim["key"])
    name, certificate, key = identity
    transport = settings(config)
    try:
        context = ssl.create_default_context(cafile=config.ca)
    except (OSError, ValueError) as error:
        return f"ca: {config.ca}: {error}"
    if not transport["pkcs11"] or claim:  # else the key is in the token
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ValueError) as error:
            return f"certificate: {certificate} with {key}: {error}"
    tell(f"certificate files of the {'claim' if claim else 'device'}")
    client = make_client(config, port, name, certificate, key)
    problem = ""
    if transport["proxy"]:
        tell(f"the way leads through the proxy {transport['proxy']['host']}")
    else:
        problem = await _reach(config, tell) or await _handshake(config, context, tell)
    return problem or await _session(client, config, name, claim, tell)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


async def _reach(config: Config, tell: Tell) -> str:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(config.endpoint, config.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"DNS: {config.endpoint} cannot be resolved: {error.strerror or error}"
    address = str(found[0][4][0])
    tell(f"DNS: {config.endpoint} is {address}")
    try:
        _, writer = await wait_for(asyncio.open_connection(address, config.port), _CONNECT_S)
        writer.close()
        await writer.wait_closed()
    except asyncio.TimeoutError:
        return f"TCP: no answer from {address} port {config.port} within {_CONNECT_S} s"
    except OSError as error:
        return f"TCP: {address} port {config.port}: {error.strerror or error}"
    tell(f"TCP: port {config.port} is open")
    return ""


async def _handshake(config: Config, context: ssl.SSLContext, tell: Tell) -> str:
    """TLS alone, where the reasons are known best."""
    try:
        _, writer = await wait_for(
            asyncio.open_connection(config.endpoint, config.port, ssl=context, server_hostname=config.server_hostname),
            _CONNECT_S,
        )
    except asyncio.TimeoutError:
        return f"TLS: port {config.port} is open, but there is no handshake within {_CONNECT_S} s"
    except ssl.SSLCertVerificationError as error:
        for part, text in _VERIFY:
            if part in error.verify_message:
                return text.format(now=_now(), host=config.server_hostname, ca=config.ca)
        return f"TLS: the server's certificate: {error.verify_message}"
    except OSError as error:
        return f"TLS: {getattr(error, 'reason', None) or error.strerror or error}"
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass  # with TLS 1.3 it may refuse our certificate only now; the session will say so
    tell("TLS: the server is the one that the ca vouches for")
    return ""


async def _session(client: Any, config: Config, name: str, claim: bool, tell: Tell) -> str:
    try:
        await client.connect()
    except Refused as error:
        return _CODES.get(error.code, "MQTT: " + error.code).format(name=name)
    except AgentError as error:
        await client.close()
        return f"certificate: the service closes the connection; is it registered and active? ({error})"
    tell(f"MQTT: connected as {name}")
    reader = asyncio.create_task(_read(client))
    try:
        return await _topics(Requests(client), config, name, claim, tell)
    finally:
        await client.close()
        reader.cancel()


async def _read(client: Any) -> None:
    try:
        await client.run()
    except AgentError:
        pass  # whoever waits for an answer is told


async def _topics(requests: Requests, config: Config, name: str, claim: bool, tell: Tell) -> str:
    """Everything an agent subscribes to, and one harmless request to each service."""
    if claim:
        assert config.claim is not None
        create = topics.CREATE_FROM_CSR if config.claim["csr"] else topics.CREATE_KEYS
        topic = topics.provision(config.claim["template"])
        filters = [one + end for one in (create, topic) for end in (topics.ACCEPTED, topics.REJECTED)]
        problem = await _subscribe(requests, filters)
        if not problem:
            tell("policy: provisioning topics")
        return problem
    shadow = topics.shadow(name, "get")
    filters = [topics.jobs(name, rest) for rest in topics.JOB_FILTERS]
    filters += [topics.shadow(name, rest) for rest in ("get/accepted", "get/rejected", "update/accepted")]
    problem = (
        await _subscribe(requests, filters)
        or await _ask(requests, topics.jobs(name, "$next/get"))
        or await _ask(requests, shadow)
    )
    if not problem:
        tell("policy: jobs and shadow answer")
    return problem


async def _subscribe(requests: Requests, filters: list[str]) -> str:
    for one in filters:
        try:
            await requests.subscribe([one])
        except Refused:
            return f"policy: iot:Subscribe is not allowed for {one}"
        except TransportError:
            return f"policy: subscribing to {one} ended the connection: iot:Subscribe is missing"
    return ""


async def _ask(requests: Requests, topic: str) -> str:
    try:
        await requests.call(topic, {}, _ANSWER_S)
    except Refused as error:
        if error.code not in ("404", "ResourceNotFound"):  # nothing there is an answer too
            return f"topic: {topic}: {error}"
    except TransportError:
        if requests.client.connected:
            return f"topic: {topic}: no answer within {_ANSWER_S} s; is iot:Receive allowed for its replies?"
        return f"policy: publishing to {topic} ended the connection: iot:Publish is missing"
    return ""
