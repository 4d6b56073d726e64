# SPDX-License-Identifier: Apache-2.0
"""Stage 0: start an agent, outlive it. Never updated: small, and it asks little of agents.

A board whose main.py ends sits in the REPL for ever, so every way out but Ctrl-C is machine.reset(). What chooses the
agent is in stage0.py, which does not stay in memory while it runs.
"""

import gc
import sys

import machine


def choice():
    """The globals of stage0.py. Not imported: the path of modules is the application's to change."""
    names = {}
    with open("/stage0.py") as f:
        exec(f.read(), names)
    return names


def main():
    gc.threshold(4096)  # collect early: what stays is then packed low, and TLS finds its contiguous blocks
    names = choice()
    begun = names["begin"]()
    if begun:
        run, slot, arguments = begun
        names.clear()
        gc.collect()
        try:
            run(*arguments)
        except Exception as error:
            sys.print_exception(error)
            run = begun = None
            for name in list(sys.modules):
                if name.split(".")[0] == "edgeagent":
                    del sys.modules[name]  # its memory is needed now
            gc.collect()
            choice()["escaped"](slot, error, arguments[2])


try:
    main()
except Exception as error:
    sys.print_exception(error)
machine.reset()
