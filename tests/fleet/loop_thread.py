# SPDX-License-Identifier: Apache-2.0
"""An event loop on a thread of its own, so that a test can talk to a real server with blocking clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 20) -> T:
        """The result of a coroutine run on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """The result of a function called on the loop's thread (where a Store made there must be used)."""

        async def work() -> T:
            return function(*arguments)

        return self.run(work())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
