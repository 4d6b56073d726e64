# SPDX-License-Identifier: Apache-2.0
"""Virtual time: a world of timed events, and an asyncio loop that lives in it and can be destroyed between two steps.

Nothing sleeps and no file descriptor exists: the clock jumps to the next timer or event, so hours take milliseconds
and a run is a function of its seed alone. The world outlives the loops: a boot of the device is one loop, a power cut
throws it away together with every task in it.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class PowerCut(SystemExit):
    """Ends a boot, past every `except Exception` and through the loop."""


class Violation(AssertionError):
    """The property that a schedule broke."""


class Time:
    """Virtual seconds, and what is going to happen outside the device."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` then. Events of the same moment happen in the order in which they were asked for."""
        self._order += 1
        heapq.heappush(self._events, (self.now + seconds, self._order, act))

    @property
    def next(self) -> float:
        return self._events[0][0] if self._events else float("inf")

    def step(self) -> None:
        """Let the next event happen."""
        at, _, act = heapq.heappop(self._events)
        self.now = max(self.now, at)
        act()


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs one callback at a time in FIFO order, as asyncio does; calls `before_step` before each."""

    def __init__(self, time: Time, before_step: Callable[[], None]) -> None:
        super().__init__()
        self._virtual = time
        self._before_step = before_step
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        self.tasks = [one for one in self.tasks if not one.done()]
        self.tasks.append(task)
        return task

    def time(self) -> float:
        return self._virtual.now

    def _run_once(self) -> None:
        if self._ready:
            handle = self._ready.popleft()
            if not handle._cancelled:
                self._before_step()
                handle._run()
            return
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        due = timers[0]._when if timers else float("inf")
        if self._virtual.next <= due:
            if not timers and self._virtual.next == float("inf"):
                raise Violation("nothing will ever happen again")
            self._virtual.step()
            return
        self._virtual.now = max(self._virtual.now, due)
        while timers and timers[0]._when <= due:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            self._ready.append(timer)

    def run(self, coro: Any) -> None:
        """Run until `coro` ends. Raises what it raises, or PowerCut."""
        main = self.create_task(coro)
        main.add_done_callback(lambda _: self.stop())
        self.run_forever()
        main.result()

    def destroy(self) -> None:
        """Every task is gone, without having been told."""
        self.set_exception_handler(lambda loop, context: None)
        events._set_running_loop(self)  # clean-up code of the coroutines may look for it
        try:
            for task in self.tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                # It may have been running when the power went, or want to go on: there is nothing to go on with.
                with suppress(RuntimeError, ValueError, PowerCut):
                    task.get_coro().close()  # type: ignore[union-attr]
        finally:
            events._set_running_loop(None)
        self.tasks = []
        self._ready.clear()
        self._scheduled.clear()
        self.close()
