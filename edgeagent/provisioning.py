# SPDX-License-Identifier: Apache-2.0
"""Fleet Provisioning by claim: a device with a shared claim certificate gets an identity of its own.

Source: aws-iot-protocol.md 6.1. The requests have no token, so one is outstanding at a time (rule 18).
"""

import gc

from edgeagent import topics
from edgeagent.errors import ProtocolError
from edgeagent.limits import LIMITS

try:
    from typing import Any
except ImportError:
    pass


def _text(answer: "dict[str, Any]", field: str, limit: int) -> str:
    value = answer.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise ProtocolError("provisioning answer: %s must be text of 1 to %d characters" % (field, limit))
    return value


async def provision(requests: "Any", port: "Any", claim: "dict[str, Any]") -> "dict[str, Any]":
    """Create a certificate and register this device with the template of `claim` (see config.py).

    requests: a Requests, or a Client, connected with the claim certificate and running.
    Returns {"thingName", "certificatePem", "privateKey", "deviceConfiguration"}. Nothing is stored: the certificate is
    ACTIVE now, and the caller makes it durable before it reconnects. Raises Refused with the service's errorCode
    (6.1), ProtocolError for an answer of the wrong shape, TransportError, ConfigError (no CSR on this port).
    """
    if not hasattr(requests, "call"):
        from edgeagent.mqtt.rpc import Requests

        requests = Requests(requests)
    parameters = claim["parameters"]
    create = topics.CREATE_FROM_CSR if claim["csr"] else topics.CREATE_KEYS
    register = topics.provision(claim["template"])
    await requests.subscribe([name + end for name in (create, register) for end in (topics.ACCEPTED, topics.REJECTED)])
    if claim["csr"]:
        key, csr = port.make_csr(parameters.get("SerialNumber") or "edgeagent")
        answer = await requests.call(create, {"certificateSigningRequest": csr}, token=False)
        key = key.decode()
    else:
        answer = await requests.call(create, {}, token=False)
        key = _text(answer, "privateKey", LIMITS.CREDENTIAL_BYTES)
    certificate = _text(answer, "certificatePem", LIMITS.CREDENTIAL_BYTES)
    token = _text(answer, "certificateOwnershipToken", 2048)
    answer = None
    gc.collect()  # the answer was up to 4 KB of text
    answer = await requests.call(register, {"certificateOwnershipToken": token, "parameters": parameters}, token=False)
    configuration = answer.get("deviceConfiguration", {})
    if not isinstance(configuration, dict):
        raise ProtocolError("provisioning answer: deviceConfiguration must be an object")
    return {
        "thingName": _text(answer, "thingName", 128),
        "certificatePem": certificate,
        "privateKey": key,
        "deviceConfiguration": configuration,
    }
