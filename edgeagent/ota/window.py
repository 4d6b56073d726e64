# SPDX-License-Identifier: Apache-2.0
"""A maintenance window: {"from": "22:00", "to": "04:30", "days": "Mon-Fri,Sun"}, UTC.

days, which may be missing, are those on which it opens; one that ends before it begins ends the day after, and from =
to is all day. An unset clock means that it is not open.
"""

from edgeagent import clock
from edgeagent.compat import Any
from edgeagent.errors import JobRejected

_DAYS = "MonTueWedThuFriSatSun"


def closed(window: "Any", now: int) -> str:
    """Why the window is not open; "" if it is. now: epoch seconds. Raises JobRejected if it is no window."""
    try:
        start, end = [_minutes(window[name]) for name in ("from", "to")]
        days = ""
        for part in window.get("days", "Mon-Sun").split(","):
            first, _, last = part.partition("-")
            at, until = _day(first), _day(last or first)
            while at != until:
                days += str(at)
                at = (at + 1) % 7
            days += str(at)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise JobRejected("window: must be from and to as HH:MM, days as Mon-Fri,Sun") from None
    if now < clock.SET:
        return "window: the clock is not set"
    now //= 60
    minute = now % 1440
    late = minute < end <= start  # what has opened yesterday
    if str((now // 1440 + 3 - late) % 7) in days and (late or (start <= minute and (minute < end or end <= start))):
        return ""
    return "window: opens at " + window["from"]  # type: ignore[no-any-return]


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    if len(text) != 5 or not 0 <= int(hours) < 24 or not 0 <= int(minutes) < 60:
        raise ValueError
    return int(hours) * 60 + int(minutes)


def _day(name: str) -> int:
    at = _DAYS.index(name)
    if len(name) != 3 or at % 3:
        raise ValueError
    return at // 3
