# SPDX-License-Identifier: Apache-2.0
"""Load and validate `agent.json`. A board drops this module once its configuration is read.

Shape (members marked * are required):
    endpoint*         host name or address of the MQTT endpoint
    port              default 8883
    server_hostname   name checked in the server certificate; default `endpoint`
    ca*               path of the CA certificate (DER on boards, PEM on CPython)
    https_ca          path of the CA certificate of presigned URLs' servers, in the same form; default `ca`
    state_dir         where identity, journal and shadow copies live; default given by the port
    slots_dir         where application slots live; default given by the port
    application       module imported from the active slot; default "app"
    trust             path of the update trust file; default: updates are refused
    thing_name        with `certificate` and `key`: a pre-provisioned identity
    claim             {certificate*, key*, template*, parameters{name: text}, csr: bool}: Fleet Provisioning by claim.
                      In a parameter {serial}, {board}, {chip} … stand for that fact of the device
    keepalive         seconds, 30-1200, default 60
    confirm_within    seconds a trial version has to prove itself, 10-3600, default 120
    presence          topic, such as "edge/{thing}/presence", that says "online" or "offline", retained and as last will
    attributes        {name: text|number|bool}: fixed facts reported in the shadow
    device_configuration  {name: text}: what the provisioning template had for the application
    transport         the MQTT client of a host, see edgeagent/transports; boards have one
    telemetry         see edgeagent/telemetry.py
    defender          see edgeagent/defender.py
    handlers          programs that jobs may run, see edgeagent/jobs/steps.py; boards have none
    image             updates of the whole system by RAUC, see edgeagent/image.py; boards have none
    update_window     {from, to, days}: when updates may be done, see edgeagent/ota/gate.py
    log_level         "debug" | "info" | "warning" | "error", default "info"
Paths are relative to the folder of agent.json.
"""

import json

from edgeagent.compat import Any, const, read_file
from edgeagent.errors import ConfigError

_CONFIG_BYTES = const(8192)


class Config:
    """Validated members of agent.json, with defaults and whole paths. No methods: it outlives this module."""

    endpoint: str
    port: int
    server_hostname: str
    ca: str
    https_ca: "str | None"
    state_dir: "str | None"
    slots_dir: "str | None"
    application: str
    trust: "str | None"
    presence: "str | None"
    thing_name: "str | None"
    certificate: "str | None"
    key: "str | None"
    keepalive: int
    confirm_within: int
    log_level: int
    attributes: "dict[str, Any]"
    device_configuration: "dict[str, str]"
    claim: "dict[str, Any] | None"
    transport: Any
    telemetry: Any
    handlers: Any
    defender: Any
    image: Any
    update_window: Any


def _texts(data: Any, folder: str, where: str, names: str) -> "dict[str, Any]":
    """The text members `names` of an object: `*` marks a required one, `/` a path. Absent ones are None."""
    if not isinstance(data, dict):
        raise ConfigError(where[:-2], "must be an object")
    found = {}
    for word in names.split():
        name = word.strip("*/")
        value = data.get(name)
        if value is None:
            if word[0] == "*":
                raise ConfigError(where + name, "is missing")
        elif not isinstance(value, str) or not 0 < len(value) <= 512:
            raise ConfigError(where + name, "must be text of 1 to 512 characters")
        elif word[-1] == "/" and folder and value[0] != "/":
            value = folder + "/" + value
        found[name] = value
    return found


def _table(data: Any, where: str, name: str, kinds: Any, problem: str) -> "dict[str, Any]":
    where += name
    value = data.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(where, "must be an object")
    for member in value:
        if not isinstance(value[member], kinds):
            raise ConfigError(where + "." + member, problem)
    return value


def parse(data: Any, folder: str = "", source: str = "agent.json") -> Config:
    """data: decoded agent.json. folder: what relative paths start from. Raises ConfigError naming the member."""
    source += ": "
    names = "*endpoint server_hostname application thing_name log_level presence "
    found = _texts(data, folder, source, names + "*ca/ https_ca/ state_dir/ slots_dir/ trust/ certificate/ key/")
    found["server_hostname"] = found["server_hostname"] or found["endpoint"]
    found["application"] = found["application"] or "app"
    levels = ("debug", "info", "warning", "error")
    level = found["log_level"] or "info"
    if level not in levels:
        raise ConfigError(source + "log_level", "must be debug, info, warning or error")
    found["log_level"] = levels.index(level) * 10 + 10  # as log.py counts them
    for name, default, low, high in (
        ("port", 8883, 1, 65535),
        ("keepalive", 60, 30, 1200),
        ("confirm_within", 120, 10, 3600),
    ):
        value = data.get(name, default)
        if type(value) is not int or not low <= value <= high:  # a bool is an int to CPython's isinstance
            raise ConfigError(source + name, "must be a whole number from %d to %d" % (low, high))
        found[name] = value
    # bool is named because it is no int on MicroPython
    kinds = (str, int, float, bool)
    found["attributes"] = _table(data, source, "attributes", kinds, "must be text, number or bool")
    found["device_configuration"] = _table(data, source, "device_configuration", str, "must be text")
    claim = data.get("claim")
    if claim is not None:
        source += "claim: "
        part = _texts(claim, folder, source, "*certificate/ *key/ *template")
        part["parameters"] = _table(claim, source, "parameters", str, "must be text")
        part["csr"] = claim.get("csr", False)
        if not isinstance(part["csr"], bool):
            raise ConfigError(source + "csr", "must be true or false")
        claim = part
    elif not (found["thing_name"] and found["certificate"] and found["key"]):
        raise ConfigError(source + "claim", "is missing (or an identity of its own)")
    made = Config()
    made.claim = claim
    names = "transport telemetry defender handlers image update_window"
    for name in names.split():  # checked where they are used
        setattr(made, name, data.get(name))
    for name in found:
        setattr(made, name, found[name])
    return made


def load(path: str) -> Config:
    """Read and validate a configuration file. Raises ConfigError with the file and member in its text."""
    raw = read_file(path, _CONFIG_BYTES)
    if raw is None:
        raise ConfigError(path, "is missing or larger than %d bytes" % _CONFIG_BYTES)
    try:
        data = json.loads(raw)
    except ValueError:
        raise ConfigError(path, "is not valid JSON") from None
    return parse(data, path.rpartition("/")[0], path)
