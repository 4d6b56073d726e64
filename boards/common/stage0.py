# SPDX-License-Identifier: Apache-2.0
"""Of stage 0 (main.py): arm the watchdog, choose an agent, load it; and note how it failed. Never updated.

Agents are those of updates, /slots/agent/a and b, and the factory's, in /lib or frozen, which nothing ever changes.
Fixed for all of them: the state (edgeagent/ota/trial.py) and `edgeagent.trampoline.run(root, cause, wait)`.
main.py empties these globals while an agent runs: what lives on (`arm`) uses none of them.
"""

import hashlib
import json
import os
import sys

import machine

ROOT = "/slots"
AGENT = ROOT + "/agent/"
WATCHDOG_MS = 120000  # covers TLS handshakes and flash erases; from then on the agent feeds it
DAMAGED_S = 30  # before a restart when no agent starts: do not hammer flash and console
MAX_TRIES = 3


def arm(milliseconds):
    """Start the watchdog. Returns `wait`, a function of seconds that feeds it meanwhile."""
    import time  # not a global: it is used while an agent runs

    timer = None
    try:
        feed = machine.WDT(timeout=milliseconds).feed
    except ValueError:
        # Where the chip's is shorter (rp2: 8.4 s): a timer feeds it for so long after the last feed().
        until = 0

        def feed():
            nonlocal until
            until = time.ticks_add(time.ticks_ms(), milliseconds)

        def tick(_):  # perhaps in an interrupt: nothing here may allocate
            if time.ticks_diff(until, time.ticks_ms()) > 0:
                dog.feed()

        feed()
        dog = machine.WDT(timeout=8000)
        timer = machine.Timer(-1, period=2000, callback=tick)

    def wait(seconds, held=timer):  # a timer that nobody holds may be collected
        for _ in range(seconds):
            feed()
            time.sleep(1)

    return wait


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
    """How often agents have failed to start, once confirmed; the one that starts takes back its own failures.

    After MAX_TRIES the active one is passed over, after twice as many the one before it as well.
    """
    state["fails"] = state.get("fails", 0) + step
    save(state)


def choose(state, cause):
    """Slots in the order of trying; None is the factory's agent. Counts a boot on trial, which may fail for ever."""
    rest = [state["before"], None] if state.get("before") else [None]
    if state.get("state") != "trial":
        if state.get("active"):
            rest.insert(0, state["active"])
        return rest[min(state.get("fails", 0) // MAX_TRIES, len(rest) - 1) :]
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


def failed(slot, error, started=False):
    """Note it. True if that ends a trial: nothing else may be tried before the restart."""
    state = newest()  # the agent may have changed it
    if slot and slot == state.get("active") and state.get("state") == "trial":
        give_up(state, "%s: %s" % (type(error).__name__, error))
        return True
    if started and slot and slot in (state.get("active"), state.get("before")):
        count(state, 1)
    return False


def begin():
    """(run, slot, its arguments) of an agent that has been loaded; None if the board is to restart."""
    wait = arm(WATCHDOG_MS)
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
        hung = slot and state.get("state") != "trial" and cause == "WDT_RESET"
        try:
            if hung:
                count(state, 1)  # stays if its import is what hangs
            run = load(slot)
            if hung:
                count(state, -1)
            return run, slot, (ROOT, cause, wait)
        except Exception as error:
            sys.print_exception(error)
            if failed(slot, error):
                return None
    wait(DAMAGED_S)


def escaped(slot, error, wait):
    """An agent has raised `error`."""
    if not failed(slot, error, True):
        wait(DAMAGED_S)
