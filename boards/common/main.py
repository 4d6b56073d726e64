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
    from edgeagent.agent import Agent

    Agent.from_file(CONFIG).run()


def main():
    gc.threshold(4096)  # collect early: what stays is then packed low, and TLS finds its contiguous blocks
    watchdog = machine.WDT(timeout=WATCHDOG_MS)
    seconds = DAMAGED_S
    try:
        from edgeagent.ota import launch

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
