# SPDX-License-Identifier: Apache-2.0
"""Job operation `config`: change members of agent.json that cannot cut the device off from its fleet.

SUCCEEDED with {changed}; FAILED naming the member, with the file as it was, if anything about the change is wrong.
"""

import json

from edgeagent.attributes import Attributes
from edgeagent.compat import Any, const, read_file, write_atomic
from edgeagent.config import parse
from edgeagent.errors import JobFailed

_CONFIG_BYTES = const(8192)
_ATTRIBUTE_BYTES = const(4096)  # half of what a shadow holds (aws-iot-protocol.md 9.2): facts and functions need room
RESUME = True  # the same change again is no change

ALLOWED = ("attributes", "confirm_within", "keepalive", "log_level")


async def run(job: "Any") -> "dict[str, Any]":
    """{"operation": "config", "config": {"keepalive": 90, "attributes": {"site": "b"}}, "remove": ["attributes.hall"]}

    `attributes` are merged by name, other members replaced. `remove`: members that get their default, and attributes,
    which leave the shadow too; a list, since the service drops null members on the way (aws-iot-protocol.md 3.3).
    Raises JobFailed or ConfigError naming the member that may not be changed or is wrong, OSError if the file cannot
    be written.
    """
    agent = job.agent
    change = job.document.get("config", {})
    remove = job.document.get("remove", [])
    path = agent.config_path
    if not isinstance(change, dict) or not isinstance(remove, list) or not (change or remove):
        raise JobFailed("config must be an object with members, remove a list of names")
    if not path:
        raise JobFailed("this agent was not configured from a file")
    data = json.loads(read_file(path, _CONFIG_BYTES) or b"")
    before = data.get("attributes") or {}
    data["attributes"] = attributes = dict(before)
    for name in list(change) + remove:
        if name not in ALLOWED and not (name in remove and str(name).startswith("attributes.")):
            raise JobFailed("config.%s may not be changed by a job" % name)
    for name in remove:
        attributes.pop(name.partition(".")[2], None)
        data.pop(name, None)
    for name in change:
        if name == "attributes" and isinstance(change[name], dict):
            attributes.update(change[name])
            data[name] = attributes
        else:
            data[name] = change[name]
    text = json.dumps(data).encode()
    if len(text) > _CONFIG_BYTES or len(json.dumps(data.get("attributes"))) > _ATTRIBUTE_BYTES:
        raise JobFailed("config would be larger than %d bytes, or attributes %d" % (_CONFIG_BYTES, _ATTRIBUTE_BYTES))
    config = parse(data, path.rpartition("/")[0], "config")
    Attributes().set(**config.attributes)  # raises what agent.configure would
    write_atomic(path, text)
    facts = agent.facts()
    held = agent.attributes.full()
    for name in before:
        # One that the application has taken over since stays its own.
        if name not in config.attributes and held.get(name) == before[name]:
            agent.attributes.register(name, facts.get(name))
    agent.configure(config)
    return {"changed": ", ".join(sorted(list(change) + remove))}
