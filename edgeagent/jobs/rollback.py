# SPDX-License-Identifier: Apache-2.0
"""Job operation `rollback`: back to the version before, which is still in the other slot or partition.

    {"operation": "rollback", "version": "1.0.0", "kind": "application"}

version: what must be there, else REJECTED; may be missing. kind: or "agent", "firmware", "image". Gates as of `ota`.
What is gone back to is on trial as after an update, with the same outcome: SUCCEEDED {"version", "previous"}, or the
version that was left comes back. Security floors hold; an image has none.
"""

from edgeagent.compat import Any
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.jobs import ota
from edgeagent.ota import kinds, trial
from edgeagent.ota.gate import idle
from edgeagent.ota.handover import restart
from edgeagent.ota.verify import load_trust

RESUME = True


async def run(job: "Any") -> "dict[str, Any]":
    """Handler. Raises JobRejected, UpdateError "slot", "busy", "security-version", "rolled-back", "type", "gate"."""
    if job.document.get("kind") == kinds.KINDS[3] and getattr(job.agent.config, "image", None):
        return await job.agent.handlers.get(kinds.KINDS[3])[0](job)  # type: ignore[no-any-return]  # jobs/image.py
    return await ota.run(job, install=_back)


async def _back(job: "Any", root: str, own: str) -> None:
    """Does not return if all goes well."""
    agent = job.agent
    wanted = job.document
    kind = wanted.get("kind", kinds.KINDS[0])
    idle(agent.port)
    if kind not in kinds.KINDS:
        raise UpdateError("type", str(kind))
    target = kinds.target(agent.port, kind)
    try:
        version, level = await target.kept()
    except OSError as error:
        raise UpdateError("storage", str(error)) from None
    if wanted.get("version", version) != version:
        raise JobRejected("version: %s is kept" % version)
    floor = trial.status(target.root)["floor"]
    if level < floor or (kind == kinds.KINDS[0] and level < load_trust(agent.config.trust).floor):
        raise UpdateError("security-version", str(level))
    await restart(job, target, own, version, target.version(agent))
