# SPDX-License-Identifier: Apache-2.0
"""Fleet Provisioning by claim: a device with a shared claim certificate gets an identity of its own.

Source: aws-iot-protocol.md 6.1. The requests have no token, so one is outstanding at a time (rule 18).
"""

import gc

from edgeagent import topics
from edgeagent.compat import Any, const
from edgeagent.errors import ProtocolError

_CREDENTIAL_BYTES = const(8192)


def _text(answer: "dict[str, Any]", field: str, limit: int) -> str:
    value = answer.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise ProtocolError("bad " + field)
    return value


async def provision(requests: Any, port: Any, claim: "dict[str, Any]") -> "dict[str, Any]":
    """Create a certificate and register this device with the template of `claim` (see config.py).

    requests: a Requests, connected with the claim certificate and running.
    Returns {"thingName", "certificatePem", "privateKey", "deviceConfiguration" (as it came)}. Nothing is stored: the
    certificate is ACTIVE now, and the caller makes it durable before it reconnects. Raises Refused with the service's
    errorCode (6.1), ProtocolError naming the member of an answer that is not as it should be, TransportError,
    ConfigError (no CSR on this port).
    """
    body = {}
    parameters = claim["parameters"]
    create = topics.CREATE_KEYS
    register = topics.provision(claim["template"])
    if claim["csr"]:
        create = topics.CREATE_FROM_CSR
        key, body["certificateSigningRequest"] = port.make_csr(parameters.get("SerialNumber") or "edgeagent")
        key = key.decode()
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
