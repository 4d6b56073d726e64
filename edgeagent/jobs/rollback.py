# SPDX-License-Identifier: Apache-2.0
"""Job operation `rollback`: back to the version before, which is still in the other slot.

    {"operation": "rollback", "version": "1.0.0", "kind": "application"}

version: what must be there, else REJECTED; may be missing. kind: or "agent". Gates as of `ota`. What is gone back to is
on trial as after an update, with the same outcome: SUCCEEDED {"version", "previous"}, or the version that was left
comes back. Security floors hold.
"""

from edgeagent.compat import Any
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.jobs import ota
from edgeagent.ota import kinds, trial
from edgeagent.ota.handover import restart
from edgeagent.ota.verify import load_trust

RESUME = True


async def run(job: "Any") -> "dict[str, Any]":
    """Handler. Raises JobRejected, UpdateError "slot", "busy", "security-version", "rolled-back", "type", "gate"."""
    return await ota.run(job, install=_back)


async def _back(job: "Any", root: str, own: str) -> None:
    """Does not return if all goes well."""
    agent = job.agent
    wanted = job.document
    kind = wanted.get("kind", kinds.KINDS[0])
    busy = kinds.find(agent.port)[1]
    if busy:
        raise UpdateError("busy", busy["version"])
    if kind not in kinds.KINDS[:2]:
        raise UpdateError("type", str(kind))
    target = kinds.target(agent.port, kind)
    status = trial.status(target.root)
    slot = trial.other(status["active"])
    kept = trial.info(target.root, slot)
    if status["state"] == "rolled_back":
        raise UpdateError("rolled-back", status["version"])
    if not status["active"] or not kept["complete"] or not trial.filled(target.root, slot):
        raise UpdateError("slot", "nothing is kept")
    # Of a slot that was filled at the factory only the second is known.
    version = kept.get("version") or status["previous_version"]
    if wanted.get("version", version) != version:
        raise JobRejected("version: %s is kept" % version)
    level = kept.get("security_version", 0)
    if level < status["floor"] or (kind == kinds.KINDS[0] and level < load_trust(agent.config.trust).floor):
        raise UpdateError("security-version", str(level))
    await restart(job, target, own, version, target.version(agent))
