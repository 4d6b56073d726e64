# SPDX-License-Identifier: Apache-2.0
"""Load and validate `agent.json`; the limits of the agent in one place, with units.

Shape (members marked * are required):
    endpoint*         host name or address of the MQTT endpoint
    port              default 8883
    server_hostname   name checked in the server certificate; default `endpoint`
    ca*               path of the CA certificate (DER on boards, PEM on CPython)
    state_dir         where identity, journal and shadow copies live; default given by the port
    slots_dir         where application slots live; default given by the port
    application       module imported from the active slot; default "app"
    trust             path of the update trust file; default: updates are refused
    thing_name        with `certificate` and `key`: a pre-provisioned identity
    claim             {certificate*, key*, template*, parameters{name: text}, csr: bool}: Fleet Provisioning by claim
    keepalive         seconds, 30-1200, default 60
    confirm_within    seconds a trial version has to prove itself, 10-3600, default 120
    attributes        {name: text|number|bool}: fixed facts reported in the shadow
    log_level         "debug" | "info" | "warning" | "error", default "info"
Paths are relative to the folder of agent.json.
"""

import json

from edgeagent import compat, log
from edgeagent.compat import const
from edgeagent.errors import ConfigError

try:
    from typing import Any
except ImportError:
    pass


class LIMITS:
    """Hard limits of the device side. Bytes and seconds unless the name says otherwise."""

    CONFIG_BYTES = 8192
    MQTT_PACKET = 16384  # receive cap; larger packets are drained and reported
    JOB_DOCUMENT = 8192  # micropython.md A1.1: an 8 KB document already needs 21 KB of heap
    JOURNAL_BYTES = 8192
    CREDENTIAL_BYTES = 8192
    STATUS_DETAIL_CHARS = 1024  # aws-iot-protocol.md 1.1
    STATUS_DETAIL_PAIRS = 10
    SHADOW_BYTES = 8192
    BLOCK = 4096  # OTA block
    MANIFEST_BYTES = 4096
    CONNECT_S = 30  # TCP + TLS + CONNACK
    REQUEST_S = 15  # one request/response on a reserved topic
    BACKOFF_MIN_S = 1
    BACKOFF_MAX_S = 60


_LEVELS = {"debug": log.DEBUG, "info": log.INFO, "warning": log.WARNING, "error": log.ERROR}
_TEXT_CHARS = const(512)


class Config:
    """Validated configuration; attributes are the members of agent.json, claim and attributes stay dicts."""

    def __init__(self, data: "dict[str, Any]", folder: str = "", source: str = "agent.json") -> None:
        """data: decoded agent.json. folder: what relative paths start from. Raises ConfigError naming the member."""
        self._where = source
        self._folder = folder
        if not isinstance(data, dict):
            raise ConfigError(source, "must hold a JSON object")
        text, path, whole = self._text, self._path, self._whole
        self.endpoint = text(data, "endpoint", True)
        self.port = whole(data, "port", 8883, 1, 65535)
        self.server_hostname = text(data, "server_hostname") or self.endpoint
        self.ca = path(data, "ca", True)
        self.state_dir = path(data, "state_dir")
        self.slots_dir = path(data, "slots_dir")
        self.application = text(data, "application") or "app"
        self.trust = path(data, "trust")
        self.thing_name = text(data, "thing_name")
        self.certificate = path(data, "certificate")
        self.key = path(data, "key")
        self.keepalive = whole(data, "keepalive", 60, 30, 1200)
        self.confirm_within = whole(data, "confirm_within", 120, 10, 3600)
        level = text(data, "log_level") or "info"
        self._need(level in _LEVELS, "log_level", "must be debug, info, warning or error")
        self.log_level = _LEVELS[level]
        self.attributes = self._object(data, "attributes", (str, int, float, bool))  # a bool is no int on MicroPython
        self.claim: "dict[str, Any] | None" = None
        if data.get("claim") is not None:
            self.claim = self._claim(self._object(data, "claim", object))
        elif not (self.thing_name and self.certificate and self.key):
            self._need(False, "claim", "is missing; give it, or thing_name, certificate and key")

    def _claim(self, claim: "dict[str, Any]") -> "dict[str, Any]":
        self._where += ": claim"
        self._need(isinstance(claim.get("csr", False), bool), "csr", "must be true or false")
        return {
            "certificate": self._path(claim, "certificate", True),
            "key": self._path(claim, "key", True),
            "template": self._text(claim, "template", True),
            "parameters": self._object(claim, "parameters", str),
            "csr": claim.get("csr", False),
        }

    def _need(self, condition: object, field: str, problem: str) -> None:
        if not condition:
            raise ConfigError("%s: %s" % (self._where, field), problem)

    def _text(self, data: "dict[str, Any]", field: str, required: bool = False) -> "Any":
        value = data.get(field)
        if value is None:
            self._need(not required, field, "is missing")
        else:
            good = isinstance(value, str) and 0 < len(value) <= _TEXT_CHARS
            self._need(good, field, "must be text of 1 to %d characters" % _TEXT_CHARS)
        return value

    def _path(self, data: "dict[str, Any]", field: str, required: bool = False) -> "Any":
        value = self._text(data, field, required)
        return value if not value or value[0] == "/" or not self._folder else self._folder + "/" + value

    def _whole(self, data: "dict[str, Any]", field: str, default: int, low: int, high: int) -> int:
        value = data.get(field, default)
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        self._need(good, field, "must be a whole number from %d to %d" % (low, high))
        return int(value)

    def _object(self, data: "dict[str, Any]", field: str, kind: "Any") -> "dict[str, Any]":
        value = data.get(field, {})
        self._need(isinstance(value, dict), field, "must be an object")
        for name in value:
            self._need(
                isinstance(value[name], kind),
                field + "." + name,
                "must be text" + ("" if kind is str else ", a number, true or false"),
            )
        return dict(value)


def load(path: str) -> Config:
    """Read and validate a configuration file. Raises ConfigError with the file and member in its text."""
    raw = compat.read_file(path, LIMITS.CONFIG_BYTES)
    if raw is None:
        raise ConfigError(path, "is missing or larger than %d bytes" % LIMITS.CONFIG_BYTES)
    try:
        data = json.loads(raw.decode())
    except (ValueError, UnicodeError):
        raise ConfigError(path, "is not valid JSON") from None
    return Config(data, path[: path.rfind("/")] if "/" in path else "", path)
