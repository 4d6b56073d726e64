# SPDX-License-Identifier: Apache-2.0
"""Levels, one sink set by the port, and a small ring of recent lines for the diagnostics job.

Lines are `time level area message`. Secrets never reach here: callers log names and sizes, not contents.
"""

from edgeagent import clock
from edgeagent.compat import Any, const

INFO = const(20)  # debug 10 (used by applications), warning 30, error 40

_RING_LINES = const(40)
_LINE_CHARS = const(160)

recent: "list[str]" = []  # the latest lines, oldest first
_level = 20
_sink: "Any" = print


def configure(level: int = INFO, sink: "Any" = None) -> None:
    """Set the least level that is kept and where lines go (a callable of one string; default print)."""
    global _level, _sink
    _level = level
    _sink = sink or _sink


def write(level: int, name: str, area: str, message: str, args: "tuple[Any, ...]") -> None:
    """Log `message % args` if the level is kept; built only then."""
    if level >= _level:
        head = "%d %s %s " % (clock.now(), name, area)
        if args:
            message = message % args
        for part in message.split("\n"):  # a traceback keeps its last line, which says what happened
            if part:
                part = (head + part)[:_LINE_CHARS]
                recent.append(part)
                if len(recent) > _RING_LINES:
                    recent.pop(0)
                _sink(part)


def _at(level: int, name: str) -> "Any":
    return lambda area, message, *args: write(level, name, area, message, args)


# Functions of (area, message, *args).
info = _at(20, "INFO")
warning = _at(30, "WARNING")
error = _at(40, "ERROR")
