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
RESUME = True  # the same change again is no change

ALLOWED = ("attributes", "confirm_within", "keepalive", "log_level")


async def run(job: "Any") -> "dict[str, Any]":
    """{"operation": "config", "config": {"log_level": "debug", "attributes": {"site": "berlin"}}}

    `attributes` are merged by name, other members replaced. Raises JobFailed or ConfigError naming the member that may
    not be changed or is wrong, OSError if the file cannot be written.
    """
    agent = job.agent
    change = job.document.get("config")
    path = agent.config_path
    if not isinstance(change, dict) or not change:
        raise JobFailed("config must be an object with members")
    data = json.loads(read_file(path, _CONFIG_BYTES) or b"")
    for name in change:
        value = change[name]
        if name not in ALLOWED:
            raise JobFailed("config.%s may not be changed by a job" % name)
        if isinstance(value, dict):
            value = dict(data.get(name) or {})
            value.update(change[name])
        data[name] = value
    text = json.dumps(data).encode()
    if len(text) > _CONFIG_BYTES:
        raise JobFailed("config would be larger than %d bytes" % _CONFIG_BYTES)
    config = parse(data, path.rpartition("/")[0], "config")
    Attributes().set(**config.attributes)  # raises what agent.configure would
    write_atomic(path, text)
    agent.configure(config)
    return {"changed": ", ".join(sorted(change))}
