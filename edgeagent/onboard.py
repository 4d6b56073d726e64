# SPDX-License-Identifier: Apache-2.0
"""Who the device is; at first contact that is asked with the claim certificate. Loaded for that, and dropped after it.

The claim session ends before the device's own begins: a board has memory for one TLS session (micropython.md, 5).
A power cut before the identity is stored costs a certificate that nobody uses; the next boot asks for another.
"""

import asyncio
import json
import os

from edgeagent import log
from edgeagent.compat import Any, const, exc_text, read_file, write_atomic
from edgeagent.errors import AgentError, ConfigError, TransportError
from edgeagent.identity import Identity, known

_CONFIG_BYTES = const(8192)


async def identify(agent: "Any") -> "tuple[str, str, str]":
    """(thing name, certificate path, key path): configured, stored, or got by claim and stored. Raises AgentError.

    Sets agent.credentials, the paths of what is in use. An identity on trial is watched from here on.
    """
    config = agent.config
    port = agent.port
    identity = Identity(port.state_dir, port.pem)
    found = known(config, identity.start())
    if not found:
        claim = config.claim
        if not claim:
            raise ConfigError("claim", "is missing and there is no identity")
        answer = await _claim(agent, claim)
        configure(agent, answer["deviceConfiguration"])
        try:
            identity.store(answer["thingName"], answer["certificatePem"], answer["privateKey"])
        except OSError as error:
            raise TransportError("identity not stored: " + exc_text(error)) from None
        found = identity.load()
        log.info("agent", "provisioned as %s", answer["thingName"])
    elif identity.trial:
        from edgeagent.jobs.rotate_certificate import watch

        agent._begin(lambda: watch(agent, identity))
    agent.credentials = found[1:]  # type: ignore[index]
    return found  # type: ignore[return-value]


async def _claim(agent: "Any", claim: "dict[str, Any]") -> "dict[str, Any]":
    pair = None
    if claim["csr"]:
        from edgeagent.csr import request

        pair = await request(agent.port, agent.facts())
        del request
    from edgeagent.mqtt.rpc import Requests
    from edgeagent.provisioning import provision

    agent.credentials = claim["certificate"], claim["key"]
    client = agent.make_client("claim-" + os.urandom(6).hex(), claim["certificate"], claim["key"])
    try:
        await client.connect()
    except TransportError as error:
        from edgeagent.explain import explain

        raise explain(agent, error) from None
    reader = asyncio.create_task(agent.read(client))
    try:
        return await provision(Requests(client), claim, agent.facts(), pair)
    finally:
        await client.close()
        reader.cancel()


def configure(agent: "Any", given: "Any") -> None:
    """Keep the answer's deviceConfiguration in agent.json, before the identity is stored: a cut then gets both again.

    What a config job may change, numbers also as text, becomes the member of that name; all else goes to
    `device_configuration`, for the application. What cannot be kept is logged: the device must come on line all the
    same, or nobody could mend it.
    """
    path = agent.config_path
    if not isinstance(given, dict) or not given or not path:
        return
    from edgeagent.config import parse
    from edgeagent.jobs.config import ALLOWED

    for ours in (True, False):
        try:
            data = json.loads(read_file(path, _CONFIG_BYTES) or b"")
            rest = {}
            for name in given:
                value = given[name]
                if name not in ALLOWED:
                    rest[name] = value
                elif ours:
                    data[name] = int(value) if isinstance(value, str) and value.isdigit() else value
            data["device_configuration"] = rest
            text = json.dumps(data).encode()
            if len(text) > _CONFIG_BYTES:
                raise ConfigError("larger than %d bytes" % _CONFIG_BYTES)
            config = parse(data, path.rpartition("/")[0], "deviceConfiguration")
            agent.configure(config)  # knows more that may be wrong
            return write_atomic(path, text)
        except (OSError, ValueError, AgentError) as error:
            log.error("agent", "not kept: %s", exc_text(error))  # then without the members of ours
