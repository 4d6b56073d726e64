# SPDX-License-Identifier: Apache-2.0
"""Credentials that cannot work are said at once, naming the member of agent.json, not retried for ever."""

from __future__ import annotations

import ssl

from edgeagent.config import Config
from edgeagent.errors import ConfigError
from edgeagent.identity import Identity, known
from edgeagent.ports.linux import LinuxPort
from edgeagent.transports import settings


def check(config: Config, port: LinuxPort) -> None:
    """Load the CA and the credentials this start will use: the identity, or the claim if there is none yet. Dates are
    left to the agent, which waits for the clock (explain.py).

    Raises ConfigError naming the member and the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=config.ca)
    except OSError as error:
        raise ConfigError("ca", f"{config.ca}: not a CA certificate in PEM ({_why(error)})") from None
    pkcs11 = settings(config)["pkcs11"]
    found = known(config, Identity(port.state_dir, port.pem).load())
    if found and pkcs11 and found[2] == config.key:
        _certificate(context, "certificate", found[1])  # its key is in the token
    elif found:
        _pair(context, "certificate, key", found[1], found[2])
    elif config.claim is not None:
        claim = config.claim
        _pair(context, "claim.certificate, claim.key", claim["certificate"], claim["key"])


def _certificate(context: ssl.SSLContext, field: str, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)  # reads certificates, and this context serves nothing else
    except OSError as error:
        raise ConfigError(field, f"{path}: not a certificate in PEM ({_why(error)})") from None


def _pair(context: ssl.SSLContext, fields: str, certificate: str, key: str) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigError(
            fields, f"{certificate}, {key}: not a certificate in PEM and its key ({_why(error)})"
        ) from None


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "SSL error"
    return error.strerror or "cannot be read"
