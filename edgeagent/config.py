# SPDX-License-Identifier: Apache-2.0
"""Load and validate `agent.json`. A board drops this module once its configuration is read.

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

from edgeagent import compat
from edgeagent.compat import Any, const
from edgeagent.errors import ConfigError
from edgeagent.limits import LIMITS

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}  # as log.py counts them
_TEXT_CHARS = const(512)


class Config:
    """Validated members of agent.json, with defaults and whole paths. No methods: it outlives this module."""

    endpoint: str
    port: int
    server_hostname: str
    ca: str
    state_dir: "str | None"
    slots_dir: "str | None"
    application: str
    trust: "str | None"
    thing_name: "str | None"
    certificate: "str | None"
    key: "str | None"
    keepalive: int
    confirm_within: int
    log_level: int
    attributes: "dict[str, Any]"
    claim: "dict[str, Any] | None"


class _Reader:
    def __init__(self, data: Any, folder: str, where: str) -> None:
        self.data = data
        self.folder = folder
        self.where = where
        if not isinstance(data, dict):
            raise ConfigError(where, "must be a JSON object")

    def need(self, condition: object, field: str, problem: str) -> None:
        if not condition:
            raise ConfigError(self.where + ": " + field, problem)

    def text(self, field: str, required: bool = False) -> Any:
        value = self.data.get(field)
        if value is None:
            self.need(not required, field, "is missing")
        else:
            good = isinstance(value, str) and 0 < len(value) <= _TEXT_CHARS
            self.need(good, field, "must be text of 1 to %d characters" % _TEXT_CHARS)
        return value

    def path(self, field: str, required: bool = False) -> Any:
        value = self.text(field, required)
        return value if not value or value[0] == "/" or not self.folder else self.folder + "/" + value

    def whole(self, field: str, default: int, low: int, high: int) -> int:
        value = self.data.get(field, default)
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        self.need(good, field, "must be a whole number from %d to %d" % (low, high))
        return int(value)

    def table(self, field: str, kinds: Any, problem: str) -> "dict[str, Any]":
        value = self.data.get(field, {})
        self.need(isinstance(value, dict), field, "must be an object")
        for name in value:
            self.need(isinstance(value[name], kinds), field + "." + name, problem)
        return dict(value)


def parse(data: Any, folder: str = "", source: str = "agent.json") -> Config:
    """data: decoded agent.json. folder: what relative paths start from. Raises ConfigError naming the member."""
    read = _Reader(data, folder, source)
    made = Config()
    made.endpoint = read.text("endpoint", True)
    made.port = read.whole("port", 8883, 1, 65535)
    made.server_hostname = read.text("server_hostname") or made.endpoint
    made.application = read.text("application") or "app"
    made.thing_name = read.text("thing_name")
    made.ca = read.path("ca", True)
    for field in ("state_dir", "slots_dir", "trust", "certificate", "key"):
        setattr(made, field, read.path(field))
    made.keepalive = read.whole("keepalive", 60, 30, 1200)
    made.confirm_within = read.whole("confirm_within", 120, 10, 3600)
    level = read.text("log_level") or "info"
    read.need(level in _LEVELS, "log_level", "must be debug, info, warning or error")
    made.log_level = _LEVELS[level]
    # bool is named because it is no int on MicroPython
    made.attributes = read.table("attributes", (str, int, float, bool), "must be text, a number, true or false")
    made.claim = None
    claim = data.get("claim")
    if claim is not None:
        made.claim = _claim(_Reader(claim, folder, source + ": claim"))
    else:
        read.need(made.thing_name and made.certificate and made.key, "claim", "is missing (or an identity of its own)")
    return made


def _claim(read: _Reader) -> "dict[str, Any]":
    csr = read.data.get("csr", False)
    read.need(isinstance(csr, bool), "csr", "must be true or false")
    return {
        "certificate": read.path("certificate", True),
        "key": read.path("key", True),
        "template": read.text("template", True),
        "parameters": read.table("parameters", str, "must be text"),
        "csr": csr,
    }


def load(path: str) -> Config:
    """Read and validate a configuration file. Raises ConfigError with the file and member in its text."""
    raw = compat.read_file(path, LIMITS.CONFIG_BYTES)
    if raw is None:
        raise ConfigError(path, "is missing or larger than %d bytes" % LIMITS.CONFIG_BYTES)
    try:
        data = json.loads(raw.decode())
    except (ValueError, UnicodeError):
        raise ConfigError(path, "is not valid JSON") from None
    return parse(data, path[: path.rfind("/")] if "/" in path else "", path)
