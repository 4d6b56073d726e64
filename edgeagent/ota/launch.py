# SPDX-License-Identifier: Apache-2.0
"""Start the application of the right slot and outlive it. For boards and for Linux; the rules are in safety.py.

This module stays in memory while the application runs, so it is small and loads the others only when they are needed.
"""

import sys

from edgeagent import clock
from edgeagent.compat import MICROPYTHON, Any
from edgeagent.jobs.registry import unload


def run(root: str, application: str, bare: Any, cause: str = "", limit: Any = None) -> str:
    """Boot a slot and run its application until it ends by itself.

    root: folder of the slots. application: module name; its `main()` is called if there is one. bare: called without
    arguments when there is no application to run. cause: the port's reset cause. limit: function of seconds and a
    function, which is to be called after them whatever the application does; true from it means restart at once.
    Returns why it escaped: recorded, and the trial, if there was one, rolled back; the caller restarts the device after
    `backoff` seconds. Returns "" if it ended by itself, which the caller may call `failed` or a clean stop.
    Only SystemExit (a reset) passes, and KeyboardInterrupt unless the version is on trial.
    """
    before = set(sys.modules)
    slot, seconds = _safety().choose(root, application, cause)
    unload((), before, "")
    if seconds and limit:
        limit(seconds, lambda: _safety().late(root) or slot is None)
    reserve: "bytearray | None" = bytearray(1024)  # for the end of an application that filled the heap
    start = clock.ticks()
    try:
        if not slot:
            bare()
        else:
            sys.path.insert(0, slot)
            __import__(application)
            if hasattr(sys.modules[application], "main"):
                sys.modules[application].main()
    except SystemExit:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not seconds:
            raise
        # One that ran for ten minutes before it crashed starts a new row of crashes.
        stable = clock.elapsed_ms(start) >= 600000
        reserve = None  # noqa: F841  from here on there is memory again
        if MICROPYTHON and application in sys.modules:
            sys.modules[application].__dict__.clear()  # a stale reference to it would keep all that filled the heap
        unload((), before, "")  # whoever filled the heap left no room for what follows
        return _safety().escaped(root, error, stable)  # type: ignore[no-any-return]
    return ""


def failed(root: str, reason: str) -> None:
    """Record why the application ended; a trial is rolled back."""
    _safety().failed(root, reason)


def backoff(root: str) -> int:
    """Seconds to wait before the restart, so that a crashing application does not make a tight loop: 0 to 8."""
    return _safety().backoff(root)  # type: ignore[no-any-return]


def _safety() -> Any:
    from edgeagent.ota import safety

    return safety
