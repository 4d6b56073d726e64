# SPDX-License-Identifier: Apache-2.0
"""Job operation `trust`: replace the keys that may sign updates, version N by N + 1.

Document: {"operation": "trust", "envelopes": [base64, …]}. Each is an envelope (docs/ota.md) around a trust document;
one counts only if enough keys of the trust in force AND of itself signed it; before the former its JSON is not looked
at. Several lead over several versions; what this device had before is passed over, so a chain may start anywhere. An
`ota` job may bring the same list as "trust".
The file is replaced atomically, so a cut leaves the old keys or the new ones, and doing the job again ends the same.
"""

import binascii
import json

from edgeagent.compat import Any
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.ota import manifest, trial, verify

RESUME = True


async def run(job: "Any") -> "dict[str, Any]":
    """SUCCEEDED with {version, keys} now in force. Raises as `rotate`."""
    return await rotate(job.agent, job.document.get("envelopes"))


async def rotate(agent: "Any", envelopes: "Any") -> "dict[str, Any]":
    """Raises JobRejected; UpdateError "no-trust", "envelope", "trust", "trust-version", "trust-expired", "signature",
    "threshold" or "storage", with the trust in force being the last that was accepted; ConfigError if there is none.
    """
    path = agent.config.trust
    trust = new = verify.load_trust(path)
    try:
        chain = [binascii.a2b_base64(text) for text in envelopes]
        if type(envelopes) is not list or not chain:
            raise ValueError
    except (ValueError, TypeError):
        raise JobRejected("envelopes: no list of base64") from None
    problem: "UpdateError | None" = None
    for raw in chain:
        text, signatures = manifest.parse_envelope(raw)
        try:
            await verify.demand(text, signatures, trust)
        except UpdateError as error:
            problem = error  # unless it is an earlier one, whose keys are gone
            continue
        problem = None
        try:
            new = verify.Trust(json.loads(text.decode()))
        except ValueError as error:
            raise UpdateError("trust", str(error)) from None
        if new.version > trust.version:
            if new.version > trust.version + 1:
                break
            if raw is chain[-1] and verify.late(new.expires):
                raise UpdateError("trust-expired", str(new.expires))
            await verify.demand(text, signatures, new)
            new.floor = max(new.floor, trust.floor, trial.status(agent.port.slots_dir)["floor"])
            _store(path, new)
            trust = new
    if problem:
        raise problem
    if (new.version, new.threshold, new.keys) != (trust.version, trust.threshold, trust.keys):
        raise UpdateError("trust-version", "%d, here %d" % (new.version, trust.version))
    return {"version": trust.version, "keys": ", ".join([binascii.hexlify(key).decode() for key in trust.keys])}


def _store(path: str, trust: "verify.Trust") -> None:
    """Second copy first: after a cut between the two, none of them is older than what was in force.

    Raises UpdateError "storage"; the old file is then in force.
    """
    trust.data["security_version_floor"] = trust.floor
    try:
        for name in (path + ".bak", path):
            trial.write_sealed(name, trust.data)
    except OSError as error:
        raise UpdateError("storage", str(error)) from None


def keep_floor(path: "str | None", floor: int) -> None:
    """Write a risen security floor into the trust file too, where it outlives the slots' state. Raises nothing."""
    try:
        trust = verify.load_trust(path)
        if trust.floor < floor:
            trust.floor = floor
            _store(path or "", trust)
    except Exception:  # noqa: S110
        pass  # not worth the outcome of an update that is confirmed
