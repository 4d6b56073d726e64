# SPDX-License-Identifier: Apache-2.0
"""`edgeagent doctor`: go the way to the service step by step, and name the first thing that is broken, in one line."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable

from edgeagent.config import Config
from edgeagent.errors import AgentError, Refused
from edgeagent.identity import Identity
from edgeagent.mqtt.client import Client
from edgeagent.ports.linux import LinuxPort

_FLOOR = 1735689600  # 2025-01-01: a clock before it was never set
_CONNECT_S = 10
_CODES = {
    "CONNACK_2": "the service does not take this client id (thing name)",
    "CONNACK_5": "the policy of this certificate does not allow the connection",
}


async def examine(config: Config, tell: Callable[[str], None]) -> str:
    """ "" if the service can be reached with this device's identity, else what is wrong.

    tell: called with each step that is well. With the claim certificate if there is no identity yet. A running agent
    with the same identity loses its connection for a moment, as the service allows one at a time.
    """
    tell("configuration")
    if time.time() < _FLOOR:
        return f"clock: is at {time.strftime('%Y-%m-%d', time.gmtime())}; certificates count as not yet valid"
    tell("clock")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(config.endpoint, config.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"name: {config.endpoint} cannot be resolved: {error.strerror or error}"
    address = str(found[0][4][0])
    tell(f"name: {config.endpoint} is {address}")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, config.port), _CONNECT_S)
        writer.close()
        await writer.wait_closed()
    except asyncio.TimeoutError:
        return f"TCP: no answer from {address} port {config.port} within {_CONNECT_S} s"
    except OSError as error:
        return f"TCP: {address} port {config.port}: {error.strerror or error}"
    tell(f"TCP: port {config.port} is open")
    return await _session(config, tell)


async def _session(config: Config, tell: Callable[[str], None]) -> str:
    port = LinuxPort(config)
    identity = Identity(port.state_dir, port.pem).load()
    if config.thing_name and config.certificate and config.key:
        identity = (config.thing_name, config.certificate, config.key)
    who = "device"
    if identity is None:
        if config.claim is None:
            return "identity: none is stored and there is no claim"
        who = "claim"
        identity = ("edgeagent-doctor", config.claim["certificate"], config.claim["key"])
    name, certificate, key = identity
    try:
        context = ssl.create_default_context(cafile=config.ca)
    except (OSError, ValueError) as error:
        return f"ca: {config.ca}: {error}"
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        return f"certificate: {certificate} with {key}: {error}"
    tell(f"certificate files of the {who}")

    async def stream() -> object:
        return await port.open_stream(config.endpoint, config.port, config.server_hostname, config.ca, certificate, key)

    client = Client(stream, name)
    try:
        await client.connect()
    except Refused as error:
        return f"MQTT: {_CODES.get(error.code, str(error))} ({error.code})"
    except AgentError as error:
        return f"TLS: {error}"
    finally:
        await client.close()
    tell(f"TLS and MQTT as {name}")
    return ""
