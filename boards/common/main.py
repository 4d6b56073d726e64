# SPDX-License-Identifier: Apache-2.0
"""Stage 0: arm the watchdog, choose an agent, start it, outlive it. Never updated: small, and it asks little of agents.

Agents are those of updates, /slots/agent/a and b, and the factory's, in /lib or frozen, which nothing ever changes.
Fixed for all of them: the state (edgeagent/ota/trial.py) and `edgeagent.trampoline.run(root, cause, wait)`.
A board whose main.py ends sits in the REPL for ever, so every way out but Ctrl-C is machine.reset().
"""

import gc
import hashlib
import json
import os
import sys
import time

import machine

ROOT = "/slots"
AGENT = ROOT + "/agent/"
WATCHDOG_MS = 120000  # covers TLS handshakes and flash erases; from then on the agent feeds it
DAMAGED_S = 30  # before a restart when no agent starts: do not hammer flash and console
MAX_TRIES = 3


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


def read(name):
    """A copy of the state: 8 bytes of the SHA-256 of JSON, then the JSON. {} if it is missing or damaged."""
    try:
        with open(AGENT + name, "rb") as f:
            raw = f.read(2049)
        if hashlib.sha256(raw[8:]).digest()[:8] == raw[:8]:
            return json.loads(raw[8:])
    except (OSError, ValueError):
        pass
    return {}


def newest():
    return max(read("state.json"), read("state.bak"), key=lambda copy: copy.get("n", 0))


def save(state):
    """True if it is durable."""
    state["n"] += 1
    text = json.dumps(state).encode()
    try:
        for name in ("state.json", "state.bak"):
            with open(AGENT + name + ".new", "wb") as f:
                f.write(hashlib.sha256(text).digest()[:8] + text)
            os.rename(AGENT + name + ".new", AGENT + name)
        return True
    except OSError:
        return False


def give_up(state, reason):
    """End the trial. If that cannot be written, the next boot does it."""
    state.update({"active": state["before"], "state": "rolled_back", "reason": reason[:240]})
    save(state)


def count(state, step):
    """How often the active agent, once confirmed, has failed to start; the agent sets it back."""
    state["fails"] = state.get("fails", 0) + step
    save(state)


def choose(state, cause):
    """Slots in the order of trying; None is the factory's agent. Counts a boot on trial, which may fail for ever."""
    rest = [state["before"], None] if state.get("before") else [None]
    if state.get("state") != "trial":
        usable = state.get("active") and state.get("fails", 0) < MAX_TRIES
        return [state["active"]] + rest if usable else rest
    if state["boots"]:
        state["causes"].append(cause)
    if state["boots"] < MAX_TRIES:
        state["boots"] += 1
        return [state["active"]] if save(state) else rest
    give_up(state, "interrupted: " + ", ".join(state["causes"]))
    return rest


def load(slot):
    """What runs the agent. Raises what its import raises; then nothing of it is left in memory."""
    try:
        if slot:
            sys.path.insert(0, AGENT + slot)
        import edgeagent.trampoline

        return edgeagent.trampoline.run
    except Exception:
        if slot:
            sys.path.pop(0)
        for name in list(sys.modules):
            if name.split(".")[0] == "edgeagent":
                del sys.modules[name]
        raise


def start(slot, state, cause, wait):
    """Run an agent to its end; false if it could not be loaded and another one may be tried."""
    hung = slot and slot == state.get("active") and state.get("state") != "trial" and cause == "WDT_RESET"
    run = None
    try:
        if hung:
            count(state, 1)  # stays if its import is what hangs
        run = load(slot)
        if hung:
            count(state, -1)
        run(ROOT, cause, wait)
    except Exception as error:
        sys.print_exception(error)
        state = newest()  # the agent may have changed it
        if slot and slot == state.get("active"):
            if state.get("state") == "trial":
                give_up(state, "%s: %s" % (type(error).__name__, error))
                return True
            if run:
                count(state, 1)
        if run:
            wait(DAMAGED_S)
    return run


def main():
    gc.threshold(4096)  # collect early: what stays is then packed low, and TLS finds its contiguous blocks
    watchdog = arm()

    def wait(seconds):
        for _ in range(seconds):
            watchdog.feed()
            time.sleep(1)

    cause = reset_cause()
    state = {}
    slots = [None]
    try:
        state = newest()
        trial = state.get("state") == "trial"
        slots = choose(state, cause)
        if trial:
            cause = "trial of the agent, " + cause  # how it ended does not count as the application's
    except Exception as error:  # a state of another form
        sys.print_exception(error)
    for slot in slots:
        if start(slot, state, cause, wait):
            break
    else:
        wait(DAMAGED_S)


try:
    main()
except Exception as error:
    sys.print_exception(error)
machine.reset()
