# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next attempt: exponential, capped, with jitter, so that a fleet spreads out."""

import os

from edgeagent.limits import LIMITS


class Backoff:
    """Delays that double from `start` to `stop` seconds; each is drawn evenly from the upper half of its step."""

    def __init__(self, start: int = LIMITS.BACKOFF_MIN_S, stop: int = LIMITS.BACKOFF_MAX_S) -> None:
        self.start = self.step = start
        self.stop = stop

    def next(self) -> float:
        """Seconds to wait now; the step after this one is twice as long, up to the cap."""
        step = self.step
        self.step = min(step * 2, self.stop)
        return step * (256 + os.urandom(1)[0]) / 512

    def reset(self) -> None:
        """Start again from the minimum: the link has proved itself."""
        self.step = self.start
