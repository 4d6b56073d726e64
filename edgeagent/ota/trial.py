# SPDX-License-Identifier: Apache-2.0
"""Which slot to boot; trial, confirmation and rollback. Small: the boot trampoline loads it before anything else.

    none ──activate──▶ trial ──confirm──▶ confirmed        activate is slots.Slots.activate
                         └──failed, or MAX_BOOTS boots without a confirmation──▶ rolled_back
Each arrow is one durable write (state.save). Power loss in a trial counts as a boot: the reason then says how the
trial boots ended, so that an interrupted trial is not mistaken for a crash.
"""

from edgeagent.compat import Any, const
from edgeagent.ota import Running as Running
from edgeagent.ota import state

MAX_BOOTS = const(3)
_REASON_CHARS = const(240)


def boot(root: str, cause: str = "") -> "str | None":
    """Choose the slot to run and count the boot if it is on trial; roll back by itself after MAX_BOOTS.

    cause: why the device restarted (the port's reset cause), kept to explain a rollback.
    Returns the slot's folder, or None if no slot holds an application.
    """
    document = state.load(root)
    if document is None:
        slot = state.pick(root)
    else:
        slot = document["active"]
        if document["phase"] == "trial":
            slot = _count(root, document, cause)
        elif slot and document["phase"] != "rolled_back" and not state.filled(root, slot):
            slot = state.pick(root)  # it was lost; a version that was rolled back is never tried in its place
    if slot is not None and not state.filled(root, slot):
        slot = None
    Running.slot = slot
    Running.known = True
    return root + "/" + slot if slot else None


def _count(root: str, document: "dict[str, Any]", cause: str) -> "str | None":
    tried = document["active"]
    causes = document.get("causes") or []
    if document["boots"]:
        causes.append(cause or "unknown")
    document["causes"] = causes
    if document["boots"] >= MAX_BOOTS:
        _roll_back(root, document, "interrupted: not confirmed in %d boots (%s)" % (MAX_BOOTS, ", ".join(causes)))
    elif not state.filled(root, tried):
        _roll_back(root, document, "the new slot is empty")
    else:
        document["boots"] += 1
        try:
            state.save(root, document)
        except OSError:
            # A boot that cannot be counted must not run the new version: it could fail for ever.
            return state.other(tried)
    return document["active"]  # type: ignore[no-any-return]


def _roll_back(root: str, document: "dict[str, Any]", reason: str) -> None:
    before = state.other(document["active"])
    document["active"] = before if state.filled(root, before) else None
    document["phase"] = "rolled_back"
    document["reason"] = reason[:_REASON_CHARS]
    document["causes"] = []
    try:
        state.save(root, document)
    except OSError:
        pass  # still on trial on flash: the next boot comes here again


def failed(root: str, reason: str) -> bool:
    """End a trial: the previous slot becomes active again and `reason` is kept. True if there was a trial."""
    document = state.load(root)
    if document is None or document["phase"] != "trial":
        return False
    _roll_back(root, document, reason)
    return True


def confirm(root: str) -> bool:
    """Make the version on trial the good one and raise the security floor to its own. Raises OSError.

    True if the running version is confirmed now, also if it was before; False if there is nothing to confirm.
    """
    document = state.load(root)
    if document is None:
        return False
    if document["phase"] == "trial":
        document["phase"] = "confirmed"
        document["reason"] = None
        document["causes"] = []
        document["floor"] = max(document["floor"], document["security_version"])
        state.save(root, document)
    return bool(document["phase"] == "confirmed")


def status(root: str) -> "dict[str, Any]":
    """The trial as the job handler and the operator see it.

    {"state": one of state.PHASES, "version", "previous_version", "reason", "job": text or None, "boots",
    "deadline_s", "floor": int, "active": "a"|"b"|None}
    """
    document = state.load(root)
    if document is None:
        document = {"phase": "none", "active": state.pick(root)}
    result = {"state": document["phase"], "active": document["active"]}
    for name in ("version", "previous_version", "reason", "job"):
        result[name] = document.get(name)
    for name in ("boots", "deadline_s", "floor"):
        result[name] = document.get(name, 0)
    return result
