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


class Config:
    """Validated configuration; attributes are the members of agent.json, claim and attributes stay dicts."""

    def __init__(self, data: "dict[str, Any]", folder: str = "", source: str = "agent.json") -> None:
        """data: decoded agent.json. folder: what relative paths start from. Raises ConfigError naming the member."""
        self._source = source
        self._folder = folder
        if not isinstance(data, dict):
            raise ConfigError(source, "must hold a JSON object")
        self.endpoint = str(self._text(data, "endpoint", required=True))
        self.port = self._int(data, "port", 8883, 1, 65535)
        self.server_hostname = str(self._text(data, "server_hostname") or self.endpoint)
        self.ca = str(self._path(data, "ca", required=True))
        self.state_dir = self._path(data, "state_dir")
        self.slots_dir = self._path(data, "slots_dir")
        self.application = str(self._text(data, "application") or "app")
        self.trust = self._path(data, "trust")
        self.thing_name = self._text(data, "thing_name")
        self.certificate = self._path(data, "certificate")
        self.key = self._path(data, "key")
        self.keepalive = self._int(data, "keepalive", 60, 30, 1200)
        self.confirm_within = self._int(data, "confirm_within", 120, 10, 3600)
        level = self._text(data, "log_level") or "info"
        if level not in _LEVELS:
            raise self._error("log_level", "must be one of debug, info, warning, error")
        self.log_level = _LEVELS[level]
        self.claim = self._claim(data)
        self.attributes = self._attributes(data)
        if self.claim is None and not (self.thing_name and self.certificate and self.key):
            raise self._error("claim", "is missing; give it, or thing_name, certificate and key")

    def _error(self, field: str, problem: str) -> ConfigError:
        return ConfigError("%s: %s" % (self._source, field), problem)

    def _text(self, data: "dict[str, Any]", field: str, required: bool = False, where: str = "") -> "str | None":
        value = data.get(field)
        if value is None:
            if required:
                raise self._error(where + field, "is missing")
            return None
        if not isinstance(value, str) or not value or len(value) > 512:
            raise self._error(where + field, "must be text of 1 to 512 characters")
        return value

    def _path(self, data: "dict[str, Any]", field: str, required: bool = False, where: str = "") -> "str | None":
        value = self._text(data, field, required, where)
        if value is None or value[0] == "/" or not self._folder:
            return value
        return self._folder + "/" + value

    def _int(self, data: "dict[str, Any]", field: str, default: int, low: int, high: int) -> int:
        value = data.get(field, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._error(field, "must be a whole number from %d to %d" % (low, high))
        return value

    def _claim(self, data: "dict[str, Any]") -> "dict[str, Any] | None":
        claim = data.get("claim")
        if claim is None:
            return None
        if not isinstance(claim, dict):
            raise self._error("claim", "must be an object")
        parameters = claim.get("parameters", {})
        if not isinstance(parameters, dict):
            raise self._error("claim.parameters", "must be an object of text")
        for name in parameters:
            if not isinstance(parameters[name], str):
                raise self._error("claim.parameters." + name, "must be text")
        if not isinstance(claim.get("csr", False), bool):
            raise self._error("claim.csr", "must be true or false")
        return {
            "certificate": self._path(claim, "certificate", True, "claim."),
            "key": self._path(claim, "key", True, "claim."),
            "template": self._text(claim, "template", True, "claim."),
            "parameters": parameters,
            "csr": claim.get("csr", False),
        }

    def _attributes(self, data: "dict[str, Any]") -> "dict[str, Any]":
        attributes = data.get("attributes", {})
        if not isinstance(attributes, dict):
            raise self._error("attributes", "must be an object")
        for name in attributes:
            if not isinstance(attributes[name], (str, int, float, bool)):
                raise self._error("attributes." + name, "must be text, a number, true or false")
        return attributes


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
