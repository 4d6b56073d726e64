# SPDX-License-Identifier: Apache-2.0
"""Job operation `config`: change members of agent.json that cannot cut the device off from its fleet.

SUCCEEDED with {changed}; FAILED naming the member, with the file as it was, if anything about the change is wrong.
"""

import json

from edgeagent import compat
from edgeagent.attributes import Attributes
from edgeagent.compat import Any
from edgeagent.config import parse
from edgeagent.errors import ConfigError, JobFailed
from edgeagent.limits import LIMITS

RESUME = True  # the same change again is no change

ALLOWED = ("attributes", "confirm_within", "keepalive", "log_level")


def merge(current: "dict[str, Any]", change: object) -> "dict[str, Any]":
    """agent.json as it would be with `change`: `attributes` are merged by name, other members replaced.

    Raises JobFailed naming the member that may not be changed or has the wrong shape.
    """
    if not isinstance(change, dict) or not change:
        raise JobFailed("job document: config must be an object with at least one member")
    merged = dict(current)
    for name in change:
        value = change[name]
        if name not in ALLOWED:
            raise JobFailed("config.%s may not be changed by a job; allowed: %s" % (name, ", ".join(ALLOWED)))
        if name == "attributes":
            if not isinstance(value, dict):
                raise JobFailed("config.attributes must be an object")
            attributes = dict(merged.get("attributes") or {})
            attributes.update(value)
            value = attributes
        merged[name] = value
    return merged


async def run(job: "Any") -> "dict[str, Any]":
    """{"operation": "config", "config": {"log_level": "debug", "attributes": {"site": "berlin"}}}"""
    agent = job.agent
    change = job.document.get("config")
    path = agent.config_path
    if path is None:
        raise JobFailed("this agent was not started from a configuration file")
    try:
        raw = compat.read_file(path, LIMITS.CONFIG_BYTES)
        merged = merge(json.loads((raw or b"{}").decode()), change)
        text = json.dumps(merged).encode()
        if len(text) > LIMITS.CONFIG_BYTES:
            raise JobFailed("config would be larger than %d bytes" % LIMITS.CONFIG_BYTES)
        config = parse(merged, path[: path.rfind("/")] if "/" in path else "", "config")
        probe = Attributes()
        for name in config.attributes:
            probe.register(name, config.attributes[name])
        compat.write_atomic(path, text)
    except (ConfigError, ValueError) as error:
        raise JobFailed(str(error)) from None
    except OSError as error:
        raise JobFailed("config cannot be stored: " + compat.exc_text(error)) from None
    agent.configure(config)
    return {"changed": ", ".join(sorted(change))}
