# SPDX-License-Identifier: Apache-2.0
"""Credentials that cannot work are said at once, naming the member of agent.json, not retried for ever."""

from __future__ import annotations

import ssl

from edgeagent.config import Config
from edgeagent.errors import ConfigError
from edgeagent.identity import Identity
from edgeagent.ports.linux import LinuxPort


def check(config: Config, port: LinuxPort) -> None:
    """Load the CA and the credentials this start will use: configured, or the claim if there is no identity yet.

    Raises ConfigError naming the member and the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=config.ca)
    except OSError as error:
        raise ConfigError("ca", f"{config.ca}: not a CA certificate in PEM ({_why(error)})") from None
    if config.thing_name and config.certificate and config.key:
        _pair(context, "certificate, key", config.certificate, config.key)
    elif config.claim is not None and Identity(port.state_dir, port.pem).load() is None:
        claim = config.claim
        _pair(context, "claim.certificate, claim.key", claim["certificate"], claim["key"])


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
