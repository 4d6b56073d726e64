# SPDX-License-Identifier: Apache-2.0
"""Levels, one sink set by the port, and a small ring of recent lines for the diagnostics job.

Lines are `time level area message`. Secrets never reach here: callers log names and sizes, not contents.
"""

from edgeagent import clock
from edgeagent.compat import const

DEBUG = const(10)
INFO = const(20)
WARNING = const(30)
ERROR = const(40)

_NAMES = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR"}
_RING_LINES = const(40)
_LINE_CHARS = const(160)


class _State:
    level = 20
    sink = print
    ring: "list[str]" = []


def configure(level: int = INFO, sink=None) -> None:  # type: ignore[no-untyped-def]
    """Set the least level that is kept and where lines go (a callable of one string; default print)."""
    _State.level = level
    if sink is not None:
        _State.sink = sink


def write(level: int, area: str, message: str, *args: object) -> None:
    """Log one line; `message % args` is built only if the level is kept."""
    if level < _State.level:
        return
    text = message % args if args else message
    head = "%d %s %s " % (clock.now(), _NAMES.get(level, str(level)), area)
    ring = _State.ring
    for part in text.split("\n"):  # a traceback keeps its last line, which says what happened
        if part:
            line = (head + part)[:_LINE_CHARS]
            ring.append(line)
            if len(ring) > _RING_LINES:
                ring.pop(0)
            _State.sink(line)


def debug(area: str, message: str, *args: object) -> None:
    write(DEBUG, area, message, *args)


def info(area: str, message: str, *args: object) -> None:
    write(INFO, area, message, *args)


def warning(area: str, message: str, *args: object) -> None:
    write(WARNING, area, message, *args)


def error(area: str, message: str, *args: object) -> None:
    write(ERROR, area, message, *args)


def recent() -> "list[str]":
    """The ring of recent lines, oldest first."""
    return list(_State.ring)
