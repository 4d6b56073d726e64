# SPDX-License-Identifier: Apache-2.0
"""Wall time in epoch seconds (1970, UTC, int) and monotonic milliseconds, on every runtime.

Boards differ: the epoch is 2000-01-01 on esp32 and 1970 on rp2 and unix (MicroPython docs/library/time.rst); intervals
use ticks_ms, which wraps, so never subtract two readings yourself: use `elapsed_ms`.
"""

import time

from edgeagent.compat import const

# 2026-01-01. A clock before this was never set: no certificate or artifact of a fleet is older.
SET = const(1767225600)
_EPOCH_2000 = const(946684800)

try:
    from time import ticks_diff, ticks_ms  # type: ignore[attr-defined, unused-ignore]
except ImportError:
    from edgeagent.posix import ticks_diff, ticks_ms

ticks = ticks_ms  # a monotonic reading in milliseconds; only for `elapsed_ms`
_offset = _EPOCH_2000 if time.gmtime(0)[0] == 2000 else 0


def now() -> int:
    """Epoch seconds (1970, UTC, int)."""
    return int(time.time()) + _offset


def elapsed_ms(since: int) -> int:
    """Milliseconds since an earlier `ticks()` reading."""
    return ticks_diff(ticks(), since)  # type: ignore[no-any-return, unused-ignore]
