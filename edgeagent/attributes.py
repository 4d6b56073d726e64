# SPDX-License-Identifier: Apache-2.0
"""Facts that make a device searchable in the fleet index: reported in its shadow, only what changed.

A value is text, a whole number, a finite float, true, false, None (deletes the attribute in the shadow) or a flat dict
of those. A callable is asked at each report; if it fails or gives something else, that attribute is left out and the
reason logged.
"""

from edgeagent import log
from edgeagent.compat import Any, exc_text
from edgeagent.errors import ConfigError
from edgeagent.jobs.protocol import is_name


def _plain(value: Any, flat: bool = False) -> bool:
    if isinstance(value, dict) and not flat:
        for name in value:  # noqa: SIM110 - a generator would be a function more
            if not isinstance(name, str) or not _plain(value[name], True):
                return False
        return True
    if isinstance(value, float):
        return value - value == 0  # neither infinite nor not a number, which JSON cannot say
    return value is None or isinstance(value, (str, int, bool))  # bool is no int on MicroPython


def _difference(value: Any, base: Any) -> Any:
    """What to send so that `base` becomes `value` in a shadow: members replace one by one, None deletes (9.3)."""
    part = {}
    for name in value:
        if name not in base or base[name] != value[name]:
            part[name] = value[name]
    for name in base:
        if name not in value:
            part[name] = None
    return part


class Attributes:
    """The attributes of one agent. `shadow` may be given later, once the thing name is known."""

    def __init__(self, shadow: Any = None) -> None:
        self.shadow = shadow
        self._sources: "dict[str, Any]" = {}
        self._base: "dict[str, Any]" = {}  # what the service accepted

    def register(self, name: str, value: Any) -> None:
        """Add or replace an attribute: a value, or a function without arguments. Raises ConfigError naming it.

        name: 1 to 64 letters, digits, `_`, `-`.
        """
        # Dots would be read as levels by index queries (shadow.reported.NAME).
        if not is_name(name) or not (callable(value) or _plain(value)):
            raise ConfigError("attribute " + name, "name or value not allowed")
        self._sources[name] = value

    def set(self, **values: Any) -> None:
        """Set several plain values at once: set(engineStarts=7)."""
        for name in values:
            self.register(name, values[name])

    def full(self) -> "dict[str, Any]":
        """All attributes as they are now."""
        found = {}
        for name in self._sources:
            value = self._sources[name]
            try:
                if callable(value):
                    value = value()
                if not _plain(value):
                    raise TypeError("not a plain value")
                found[name] = dict(value) if isinstance(value, dict) else value  # it may go on changing its own
            except Exception as error:  # the application's function; one bad attribute must not hide the others
                log.warning("attributes", "%s left out: %s", name, exc_text(error))
        return found

    def forget(self) -> None:
        """The link to the shadow was lost: it may have been changed meanwhile, so the next report is whole."""
        self._base = {}

    async def report(self) -> bool:
        """Send what changed since the last accepted report; True if there was something.

        Raises Refused (413 over 8 KB), TransportError.
        """
        now = self.full()
        base = self._base
        part = {}
        for name in now:
            value = now[name]
            if name not in base or base[name] != value:
                if isinstance(value, dict) and isinstance(base.get(name), dict):
                    value = _difference(value, base[name])
                part[name] = value
        if not part or not self.shadow:
            return False
        await self.shadow.update_reported(part)
        self._base = now
        return True
