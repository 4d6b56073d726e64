# SPDX-License-Identifier: Apache-2.0
"""The trampoline: arm the watchdog, run the application of the right slot, restart on any escape. Never updated.

A board whose main.py ends sits in the REPL for ever (ota.md section 5), so every way out is machine.reset(), except
Ctrl-C at a version that is not on trial.
"""

import gc
import sys
import time

import machine

ROOT = "/slots"
CONFIG = "/agent.json"
WATCHDOG_MS = 120000  # covers TLS handshakes and flash erases; from then on the agent feeds it
DAMAGED_S = 30  # before a restart when edgeagent itself does not load: do not hammer flash and console


class Feeder:
    """Where the chip's watchdog is shorter (rp2: 8.4 s): a timer feeds it for WATCHDOG_MS after the last feed()."""

    def __init__(self):
        self.feed()
        self.dog = machine.WDT(timeout=8000)
        self.timer = machine.Timer(-1, period=2000, callback=self.tick)

    def feed(self):
        self.until = time.ticks_add(time.ticks_ms(), WATCHDOG_MS)

    def tick(self, timer):  # perhaps in an interrupt: nothing here may allocate
        if time.ticks_diff(self.until, time.ticks_ms()) > 0:
            self.dog.feed()


def arm():
    try:
        return machine.WDT(timeout=WATCHDOG_MS)
    except ValueError:
        return Feeder()


def reset_cause():
    code = machine.reset_cause()
    for name in ("PWRON_RESET", "HARD_RESET", "WDT_RESET", "DEEPSLEEP_RESET", "SOFT_RESET"):
        if getattr(machine, name, None) == code:
            return name
    return "reset cause %s" % code


def application():
    import json

    try:
        with open(CONFIG) as f:
            return str(json.load(f).get("application") or "app")
    except (OSError, ValueError, AttributeError):
        return "app"


def bare():
    from edgeagent import Agent

    Agent.from_file(CONFIG).run()


def main():
    gc.threshold(4096)  # collect early: what stays is then packed low, and TLS finds its contiguous blocks
    watchdog = arm()
    seconds = DAMAGED_S
    try:
        from edgeagent import launch

        if not launch.run(ROOT, application(), bare, reset_cause()):
            launch.failed(ROOT, "the application ended by itself")
        seconds = launch.backoff(ROOT)
    except Exception as error:
        sys.print_exception(error)
    for _ in range(seconds):
        watchdog.feed()
        time.sleep(1)
    machine.reset()


main()
