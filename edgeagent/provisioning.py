# SPDX-License-Identifier: Apache-2.0
"""Fleet Provisioning: a certificate of its own for this device, over a claim's connection or, to replace it, its own.

Source: aws-iot-protocol.md 6.1. The requests have no token, so one is outstanding at a time (rule 18).
"""

import gc

from edgeagent import topics
from edgeagent.compat import Any, const
from edgeagent.errors import ConfigError, ProtocolError

_CREDENTIAL_BYTES = const(8192)


def _text(answer: "dict[str, Any]", field: str, limit: int) -> str:
    value = answer.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise ProtocolError("bad " + field)
    return value


def fill(parameters: "dict[str, str]", facts: "dict[str, Any]") -> "dict[str, str]":
    """Template parameters with each {name} replaced by that fact of the device: {serial}, {board}, {chip} …

    Raises ConfigError naming the parameter that asks for a fact this device does not have.
    """
    filled = {}
    for name in parameters:
        value = str(parameters[name])
        for fact in facts:
            value = value.replace("{%s}" % fact, str(facts[fact]))
        if "{" in value:
            raise ConfigError("parameters." + name, "no such fact: " + value)
        filled[name] = value
    return filled


async def provision(
    requests: Any, claim: "dict[str, Any]", facts: "dict[str, Any]", pair: "tuple[bytes, str] | None"
) -> "dict[str, Any]":
    """Create a certificate and register this device with a template.

    requests: a Requests, connected and running. claim: `template`, `parameters` (see config.py); facts: what parameters
    may name. pair: what `csr.request` made, or None for a key made by the service.
    Returns {"thingName", "certificatePem", "privateKey", "deviceConfiguration" (as it came)}. Nothing is stored: the
    certificate is ACTIVE now, and the caller makes it durable before it reconnects. Raises Refused with the service's
    errorCode (6.1), ProtocolError naming the member of an answer that is not as it should be, TransportError,
    ConfigError (parameter).
    """
    body: "dict[str, Any]" = {}
    parameters = fill(claim["parameters"], facts)
    create = topics.CREATE_KEYS
    register = topics.provision(claim["template"])
    if pair:
        create = topics.CREATE_FROM_CSR
        key = pair[0].decode()
        body["certificateSigningRequest"] = pair[1]
    for topic in (create, register):
        await requests.subscribe([topic + topics.ACCEPTED, topic + topics.REJECTED])
    answer = await requests.call(create, body, token=False)
    if not body:
        key = _text(answer, "privateKey", _CREDENTIAL_BYTES)
    certificate = _text(answer, "certificatePem", _CREDENTIAL_BYTES)
    body = {"certificateOwnershipToken": _text(answer, "certificateOwnershipToken", 2048), "parameters": parameters}
    answer = None
    gc.collect()  # the answer was up to 4 KB of text
    answer = await requests.call(register, body, token=False)
    return {
        "thingName": _text(answer, "thingName", 128),
        "certificatePem": certificate,
        "privateKey": key,
        "deviceConfiguration": answer.get("deviceConfiguration"),
    }
