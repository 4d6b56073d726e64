# SPDX-License-Identifier: Apache-2.0
"""Where the lines of log.py go on a host: plain, one JSON object each, or with the priority that journald reads.

Source of the priorities: sd-daemon(3), syslog(3).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

FORMATS = ("text", "json", "journal")
_PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3}


def default() -> str:
    """`journal` if the journal reads our standard output (JOURNAL_STREAM of systemd.exec(5) names it), else `text`."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return "text"
    return "journal" if stream == f"{status.st_dev}:{status.st_ino}" else "text"


def sink(name: str) -> Callable[[str], None]:
    """What takes a line `time level area message`. name: one of FORMATS."""
    sinks: dict[str, Callable[[str], None]] = {"text": print, "json": _json, "journal": _journal}
    return sinks[name]


def _json(line: str) -> None:
    moment, level, area, message = line.split(" ", 3)
    print(json.dumps({"time": int(moment), "level": level, "area": area, "message": message}, ensure_ascii=False))


def _journal(line: str) -> None:
    _, level, rest = line.split(" ", 2)  # the journal keeps the time itself
    print(f"<{_PRIORITY[level]}>{rest}")
