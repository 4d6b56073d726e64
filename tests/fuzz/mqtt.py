# SPDX-License-Identifier: Apache-2.0
"""Fuzz what the agent reads from the wire: `python -m tests.fuzz.mqtt --seconds 60 --seed 7`.

All targets share the time. The first failure is printed with the command that replays it; exit status 1.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.fuzz import mutate
from tests.fuzz.targets import TARGETS


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.mqtt", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--only", choices=sorted(TARGETS), help="one target")
    parser.add_argument("--replay", type=bytes.fromhex, metavar="HEX", help="one input, with --only")
    options = parser.parse_args(arguments)
    names = [options.only] if options.only else list(TARGETS)
    if options.replay is not None:
        if not options.only:
            parser.error("--replay needs --only")
        TARGETS[options.only][0](options.replay)
        print("no failure")
        return 0
    print(f"seed {options.seed}")
    for name in names:
        target, corpus = TARGETS[name]
        try:
            count = mutate.run(name, target, corpus, options.seed, seconds=options.seconds / len(names))
        except mutate.Failure as failure:
            print(failure)
            return 1
        print(f"{name}: {count} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
