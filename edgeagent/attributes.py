# SPDX-License-Identifier: Apache-2.0
"""Facts that make a device searchable in the fleet index: reported in its shadow, only what changed.

A value is text, a whole number, a finite float, true, false, None (deletes the attribute in the shadow) or a flat dict
of those. A callable is asked at each report; if it fails or gives something else, that attribute is left out and the
reason logged.
"""

from edgeagent import compat, log
from edgeagent.errors import ConfigError

try:
    from typing import Any

    from edgeagent.shadow import Shadow
except ImportError:
    pass

_PUNCTUATION = "_-"


def _plain(value: "Any", depth: int = 1) -> bool:
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str) or not _plain(value[name], depth - 1):
                return False
        return depth > 0
    if isinstance(value, float):
        return value - value == 0  # neither infinite nor not a number, which JSON cannot say
    return value is None or isinstance(value, (str, int, bool))  # bool is no int on MicroPython


def _difference(value: "Any", base: "Any") -> "Any":
    """What to send so that `base` becomes `value` in a shadow: members replace one by one, None deletes (9.3)."""
    if not isinstance(value, dict) or not isinstance(base, dict):
        return value
    part = {name: value[name] for name in value if name not in base or base[name] != value[name]}
    for name in base:
        if name not in value:
            part[name] = None
    return part


class Attributes:
    """The attributes of one agent. `shadow` may be given later, once the thing name is known."""

    def __init__(self, shadow: "Shadow | None" = None) -> None:
        self.shadow = shadow
        self._sources: "dict[str, Any]" = {}
        self._base: "dict[str, Any]" = {}

    def register(self, name: str, value: "Any") -> None:
        """Add or replace an attribute: a value, or a function without arguments. Raises ConfigError naming it."""
        rest = name
        for mark in _PUNCTUATION:
            rest = rest.replace(mark, "a")
        # Dots would be read as levels by index queries (shadow.reported.NAME).
        if not 0 < len(name) <= 64 or [c for c in rest if not (c.isalpha() or c.isdigit()) or ord(c) > 127]:
            raise ConfigError("attribute " + name[:64], "name must be 1 to 64 letters, digits, _ or -")
        if not callable(value) and not _plain(value):
            raise ConfigError("attribute " + name, "must be text, a number, true, false or a flat object of them")
        self._sources[name] = value

    def set(self, **values: "Any") -> None:
        """Set several plain values at once: set(engineStarts=7)."""
        for name in values:
            self.register(name, values[name])

    def full(self) -> "dict[str, Any]":
        """All attributes as they are now."""
        found = {}
        for name in self._sources:
            value = self._sources[name]
            if callable(value):
                try:
                    value = value()
                    if not _plain(value):
                        raise TypeError("not a plain value")
                except Exception as error:  # the application's function; one bad attribute must not hide the others
                    log.warning("attributes", "%s left out: %s", name, compat.exc_text(error))
                    continue
            found[name] = value
        return found

    def changed(self) -> "dict[str, Any]":
        """What differs from the last accepted report, in the form a shadow update takes."""
        now = self.full()
        return {
            name: _difference(now[name], self._base.get(name))
            for name in now
            if name not in self._base or now[name] != self._base[name]
        }

    def accepted(self, part: "dict[str, Any]") -> None:
        """The service took `part`, which came from `changed()` or `full()`: it is the base of the next difference."""
        for name in part:
            value = part[name]
            base = self._base.get(name)
            if isinstance(value, dict) and isinstance(base, dict):
                merged = dict(base)
                for member in value:
                    if value[member] is None:
                        merged.pop(member, None)
                    else:
                        merged[member] = value[member]
                value = merged
            elif isinstance(value, dict):
                value = dict(value)  # the application may go on changing its own
            self._base[name] = value

    def forget(self) -> None:
        """The link to the shadow was lost: it may have been changed meanwhile, so the next report is whole."""
        self._base = {}

    async def report(self) -> bool:
        """Send what changed; True if there was something. Raises Refused (413 over 8 KB), TransportError."""
        part = self.changed()
        if not part or self.shadow is None:
            return False
        await self.shadow.update_reported(part)
        self.accepted(part)
        return True
