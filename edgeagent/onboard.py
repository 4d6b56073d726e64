# SPDX-License-Identifier: Apache-2.0
"""First contact: connect with the claim certificate, get an identity, store it. Loaded for that, and dropped after it.

The claim session ends before the device's own begins: a board has memory for one TLS session (micropython.md, 5).
A power cut before the identity is stored costs a certificate that nobody uses; the next boot asks for another.
"""

import asyncio
import binascii
import os

from edgeagent import compat, log, provisioning
from edgeagent.compat import Any
from edgeagent.errors import AgentError, ConfigError, TransportError
from edgeagent.mqtt.rpc import Requests


async def onboard(config: "Any", port: "Any", identity: "Any", make_client: "Any") -> None:
    """Provision by the claim of `config` and store the result in `identity` (an Identity).

    make_client: (client id, certificate path, key path) -> Client. Raises AgentError.
    """
    claim = config.claim
    if claim is None:
        raise ConfigError("claim", "is missing and there is no identity")
    client_id = "claim-" + binascii.hexlify(os.urandom(6)).decode()
    client = make_client(client_id, claim["certificate"], claim["key"])
    await client.connect()
    reader = asyncio.create_task(_read(client))
    try:
        answer = await provisioning.provision(Requests(client), port, claim)
    finally:
        await client.close()
        reader.cancel()
    try:
        identity.store(answer["thingName"], answer["certificatePem"], answer["privateKey"])
    except OSError as error:
        raise TransportError("identity cannot be stored: " + compat.exc_text(error)) from None
    log.info("agent", "provisioned as %s", answer["thingName"])


async def _read(client: "Any") -> None:
    try:
        await client.run()
    except AgentError as error:
        log.debug("agent", "claim session: %s", error)  # those who wait for an answer get the same error
