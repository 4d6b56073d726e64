# SPDX-License-Identifier: Apache-2.0
"""Which MQTT client a CPython agent uses: member `transport` of agent.json. Boards always use the built-in one.

`transport` is a name, or an object whose `type` is the name. Without it: "paho" if Paho 2.2 is there, else "builtin".

    type        "builtin"    the portable client of edgeagent.mqtt: MQTT 3.1.1 on TLS
                "paho"       paho-mqtt
                "awsiotsdk"  the AWS Common Runtime
    protocol    "3.1.1" (default of paho) or "5" (of awsiotsdk)                     paho, awsiotsdk
    alpn        TLS application protocol; default "x-amzn-mqtt-ca" on port 443,
                "http/1.1" with websocket there, none on other ports                paho, awsiotsdk
    proxy       {host*, port*, type: "http" (default) | "socks4" | "socks5"}        paho; awsiotsdk: "http" only
    websocket   true: MQTT in WebSocket frames                                      paho
    path        of the WebSocket, default "/mqtt"                                   paho
    pkcs11      {library*, pin_file*, token, label}: the device's own private key   awsiotsdk
                stays in that token; `key` of agent.json is then any text
docs/transports.md says which one when, and what each cannot do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from edgeagent.errors import ConfigError

_MEMBERS = {
    "builtin": (),
    "paho": ("protocol", "alpn", "proxy", "websocket", "path"),
    "awsiotsdk": ("protocol", "alpn", "proxy", "pkcs11"),
}
_PACKAGES = {"paho": "edgeagent[linux] (paho-mqtt 2.2 or newer)", "awsiotsdk": "edgeagent[aws] (awsiotsdk)"}
_WHERE = "transport"


def settings(config: Any) -> dict[str, Any]:
    """{"type", "protocol", "alpn", "proxy", "websocket", "path", "pkcs11"}, defaults filled in.

    Raises ConfigError naming the member.
    """
    data = config.transport
    if data is None:
        data = "paho" if _installed("paho") else "builtin"
    if isinstance(data, str):
        data = {"type": data}
    if not isinstance(data, dict):
        raise ConfigError(_WHERE, "must be text or an object")
    kind = data.get("type")
    if kind not in _MEMBERS:
        raise ConfigError(_WHERE, f"type must be {', '.join(_MEMBERS)}")
    for member in data:
        if member != "type" and member not in _MEMBERS[kind]:
            raise ConfigError(f"{_WHERE}: {member}", f"is not for {kind}")
    protocol = str(data.get("protocol", "5" if kind == "awsiotsdk" else "3.1.1"))
    if protocol not in ("3.1.1", "5"):
        raise ConfigError(f"{_WHERE}: protocol", 'must be "3.1.1" or "5"')
    websocket = data.get("websocket", False)
    if not isinstance(websocket, bool):
        raise ConfigError(f"{_WHERE}: websocket", "must be true or false")
    path = _text(data, "path", "/mqtt")
    if path[:1] != "/" or not path.isprintable() or " " in path:
        raise ConfigError(f"{_WHERE}: path", "must be a path of a URL")
    alpn = "" if config.port != 443 else "http/1.1" if websocket else "x-amzn-mqtt-ca"
    found = {
        "type": kind,
        "protocol": protocol,
        "alpn": _text(data, "alpn", alpn) if "alpn" in data else alpn,
        "proxy": _proxy(data, kind),
        "websocket": websocket,
        "path": path,
        "pkcs11": _pkcs11(data),
    }
    if kind in _PACKAGES and not _installed(kind):
        raise ConfigError(_WHERE, f"{kind} needs {_PACKAGES[kind]}")
    if kind == "awsiotsdk" and config.server_hostname != config.endpoint:
        raise ConfigError(_WHERE, "awsiotsdk checks the certificate for `endpoint`; it has no other server_hostname")
    return found


def _text(data: dict[str, Any], member: str, default: str | None = None, where: str = _WHERE) -> str:
    value = data.get(member, default)
    if value is None:
        raise ConfigError(f"{where}: {member}", "is missing")
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise ConfigError(f"{where}: {member}", "must be text of 1 to 255 characters")
    return value


def _members(data: dict[str, Any], member: str, allowed: tuple[str, ...]) -> tuple[dict[str, Any] | None, str]:
    found = data.get(member)
    where = f"{_WHERE}: {member}"
    if found is not None:
        if not isinstance(found, dict):
            raise ConfigError(where, "must be an object")
        for name in found:
            if name not in allowed:
                raise ConfigError(f"{where}: {name}", "is unknown")
    return found, where


def _proxy(data: dict[str, Any], kind: str) -> dict[str, Any] | None:
    found, where = _members(data, "proxy", ("host", "port", "type"))
    if found is None:
        return None
    port = found.get("port")
    if type(port) is not int or not 0 < port < 65536:
        raise ConfigError(f"{where}: port", "must be a whole number from 1 to 65535")
    proxy = {"host": _text(found, "host", where=where), "port": port, "type": found.get("type", "http")}
    kinds = ("http", "socks4", "socks5") if kind == "paho" else ("http",)
    if proxy["type"] not in kinds:
        raise ConfigError(f"{where}: type", f"must be {' or '.join(kinds)} for {kind}")
    return proxy


def _pkcs11(data: dict[str, Any]) -> dict[str, Any] | None:
    found, where = _members(data, "pkcs11", ("library", "pin_file", "token", "label"))
    if found is None:
        return None
    part: dict[str, Any] = {name: _text(found, name, where=where) for name in ("library", "pin_file")}
    for name in ("library", "pin_file"):
        if not os.path.isabs(part[name]):
            raise ConfigError(f"{where}: {name}", "must be an absolute path")
    for name in ("token", "label"):
        part[name] = _text(found, name, where=where) if name in found else None
    return part


def _installed(kind: str) -> bool:
    try:
        if kind == "paho":
            from edgeagent.transports.paho import SUPPORTED

            return SUPPORTED
        import edgeagent.transports.aws  # noqa: F401
    except ImportError:
        return False
    return True


def make_client(
    config: Any,
    port: Any,
    client_id: str,
    cert: str,
    key: str,
    will: tuple[str, str] | None = None,
    clean: bool = True,
) -> Any:
    """A client (see edgeagent.mqtt.client.Client) as agent.json asks for it.

    config: a Config. port: opens the streams of the built-in client. cert, key: paths. will: (topic, text).
    clean: as Client's. Raises ConfigError naming the member that is wrong, or the package that is missing.
    """
    found = settings(config)
    make: Callable[..., Any]
    if found["type"] == "paho":
        from edgeagent.transports.paho import PahoTransport as make
    elif found["type"] == "awsiotsdk":
        from edgeagent.transports.aws import AwsTransport as make
    else:
        from edgeagent.mqtt.client import Client

        def open_stream() -> Any:
            return port.open_stream(config.endpoint, config.port, config.server_hostname, config.ca, cert, key)

        return Client(open_stream, client_id, config.keepalive, clean, will)
    return make(config, client_id, cert, key, will, clean, found)
