# SPDX-License-Identifier: Apache-2.0
"""Who the device is; at first contact that is asked with the claim certificate. Loaded for that, and dropped after it.

The claim session ends before the device's own begins: a board has memory for one TLS session (micropython.md, 5).
A power cut before the identity is stored costs a certificate that nobody uses; the next boot asks for another.
"""

import asyncio
import os

from edgeagent import log
from edgeagent.compat import Any, exc_text
from edgeagent.errors import ConfigError, TransportError
from edgeagent.identity import Identity


async def identify(agent: "Any") -> "tuple[str, str, str]":
    """(thing name, certificate path, key path): configured, stored, or got by claim and stored. Raises AgentError."""
    config = agent.config
    port = agent.port
    if config.thing_name and config.certificate and config.key:
        return config.thing_name, config.certificate, config.key
    identity = Identity(port.state_dir, port.pem)
    found = identity.load()
    if not found:
        claim = config.claim
        if not claim:
            raise ConfigError("claim", "is missing and there is no identity")
        from edgeagent.mqtt.rpc import Requests
        from edgeagent.provisioning import provision

        client = agent.make_client("claim-" + os.urandom(6).hex(), claim["certificate"], claim["key"])
        await client.connect()
        reader = asyncio.create_task(agent.read(client))
        try:
            answer = await provision(Requests(client), port, claim)
        finally:
            await client.close()
            reader.cancel()
        try:
            identity.store(answer["thingName"], answer["certificatePem"], answer["privateKey"])
        except OSError as error:
            raise TransportError("identity not stored: " + exc_text(error)) from None
        found = identity.load()
        log.info("agent", "provisioned as %s", answer["thingName"])
    return found  # type: ignore[return-value]
