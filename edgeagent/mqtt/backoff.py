# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next attempt: exponential, capped, with jitter, so that a fleet spreads out."""

import os


class Backoff:
    """Delays that double from 1 to 60 seconds; each is drawn evenly from the upper half of its step."""

    def reset(self) -> None:
        """Start again from the minimum: the link has proved itself."""
        self.step = 1

    __init__ = reset

    def next(self) -> float:
        """Seconds to wait now; the step after this one is twice as long, up to the cap."""
        step = self.step
        self.step = min(step * 2, 60)
        return step * (256 + os.urandom(1)[0]) / 512
