# SPDX-License-Identifier: Apache-2.0
"""Plays the bad applications and prints what became of each."""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.integration.bad_apps import NAMES, Outcome, play


def one(name: str) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        return play(name, Path(folder))


def main(names: list[str]) -> int:
    chosen = names or NAMES
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(one, chosen))
    console = Console()
    table = Table("application", "boots", "seconds", "back to", "reason of the rollback")
    bad = [outcome for outcome in outcomes if outcome.problem]
    for outcome in outcomes:
        told = f"[red]{outcome.problem}[/] {outcome.reason}" if outcome.problem else outcome.reason
        table.add_row(outcome.name, str(outcome.boots), f"{outcome.seconds:.1f}", outcome.back, told)
    console.print(table)
    console.print(f"{len(outcomes) - len(bad)} of {len(outcomes)} bad applications recovered without hands")
    print(json.dumps({"apps": len(outcomes), "bad": [asdict(outcome) for outcome in bad]}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
