# SPDX-License-Identifier: Apache-2.0
"""First contact: connect with the claim certificate, get an identity, store it. Loaded for that, and dropped after it.

The claim session ends before the device's own begins: a board has memory for one TLS session (micropython.md, 5).
A power cut before the identity is stored costs a certificate that nobody uses; the next boot asks for another.
"""

import asyncio
import os

from edgeagent import log
from edgeagent.compat import Any, exc_text
from edgeagent.errors import AgentError, ConfigError, TransportError
from edgeagent.mqtt.rpc import Requests
from edgeagent.provisioning import provision


async def onboard(config: "Any", port: "Any", identity: "Any", make_client: "Any") -> None:
    """Provision by the claim of `config` and store the result in `identity` (an Identity).

    make_client: (client id, certificate path, key path) -> Client. Raises AgentError.
    """
    claim = config.claim
    if not claim:
        raise ConfigError("claim", "is missing and there is no identity")
    client = make_client("claim-%x" % int.from_bytes(os.urandom(6), "big"), claim["certificate"], claim["key"])
    await client.connect()
    reader = asyncio.create_task(_read(client))
    try:
        answer = await provision(Requests(client), port, claim)
    finally:
        await client.close()
        reader.cancel()
    name = answer["thingName"]
    try:
        identity.store(name, answer["certificatePem"], answer["privateKey"])
    except OSError as error:
        raise TransportError("identity not stored: " + exc_text(error)) from None
    log.info("agent", "provisioned as %s", name)


async def _read(client: "Any") -> None:
    try:
        await client.run()
    except AgentError:
        pass  # those who wait for an answer get the same error
