# SPDX-License-Identifier: Apache-2.0
"""Wall time in epoch seconds (1970, UTC, int) and monotonic milliseconds, on every runtime.

Boards differ: the epoch is 2000-01-01 on esp32 and 1970 on rp2 and unix (MicroPython docs/library/time.rst); intervals
use ticks_ms, which wraps, so never subtract two readings yourself: use `elapsed_ms`.
"""

import time

_EPOCH_2000 = 946684800

try:
    from time import ticks_diff as _diff  # type: ignore[attr-defined, unused-ignore]
    from time import ticks_ms as _ticks  # type: ignore[attr-defined, unused-ignore]
except ImportError:

    def _ticks() -> int:
        return time.monotonic_ns() // 1000000

    def _diff(end: int, start: int) -> int:
        return end - start


_OFFSET = _EPOCH_2000 if time.gmtime(0)[0] == 2000 else 0


def now() -> int:
    """Epoch seconds (1970, UTC, int)."""
    return int(time.time()) + _OFFSET


def ticks() -> int:
    """A monotonic reading in milliseconds; only for `elapsed_ms`."""
    return int(_ticks())


def elapsed_ms(since: int) -> int:
    """Milliseconds since an earlier `ticks()` reading."""
    return int(_diff(_ticks(), since))
