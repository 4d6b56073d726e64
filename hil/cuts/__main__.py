# SPDX-License-Identifier: Apache-2.0
"""python -m hil.cuts: every power cut the agent has to survive. See docs/cuts.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hil.cuts import mutants, plan
from hil.cuts.run import Tally, play, play_all

# Of the table: member of Tally.
COLUMNS = {
    "operations": "operations",
    "cases": "cases",
    "states": "states",
    "cuts": "cuts",
    "bad": "bad_count",
    "seconds": "seconds",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hil.cuts", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--replay", metavar="ID", help="one case, by the id that a failure printed")
    what.add_argument("--storms", type=int, metavar="N", help="N seeded storms of cuts instead of the sweep")
    what.add_argument("--sample", action="store_true", help="a little of everything, in some seconds")
    what.add_argument(
        "--mutants", nargs="*", metavar="NAME", help="put each known fault into the agent: it must be found"
    )
    what.add_argument("--controls", action="store_true", help="careless strategies, which must show bad states")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the storms")
    parser.add_argument("--only", metavar="SCENARIO", help="only tasks of this scenario")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--agent", type=Path, metavar="FOLDER", help="with --replay: take the agent from here")
    parser.add_argument("--json", action="store_true", help="print one object, last")
    return parser.parse_args(arguments)


def print_bad(console: Console, bad: list[tuple[str, str]]) -> None:
    for case, problem in bad:
        console.print(f"[red]✗[/red] {case}\n  {problem}", highlight=False, markup=True)
        console.print(f"  python -m hil.cuts --replay '{case}'", style="dim", highlight=False)


def table_of(found: dict[tuple[str, str], Tally]) -> Table:
    """A line a scenario and kind; seconds are those of one process."""
    table = Table("scenario", "kind", *COLUMNS, show_footer=True)
    total = total_of(found)
    for column, name in zip(table.columns[2:], COLUMNS, strict=True):
        column.justify = "right"
        column.footer = "" if name == "operations" else f"{getattr(total, COLUMNS[name]):,.0f}"
    for (scenario, kind), tally in sorted(found.items()):
        table.add_row(scenario, kind, *[f"{getattr(tally, member):,.0f}" for member in COLUMNS.values()])
    return table


def total_of(found: dict[tuple[str, str], Tally]) -> Tally:
    total = Tally()
    for tally in found.values():
        total.add(tally)
    return total


def summary(found: dict[tuple[str, str], Tally], seconds: float) -> dict[str, Any]:
    total = total_of(found)
    return {
        "cases": total.cases,
        "states": total.states,
        "cuts": total.cuts,
        "bad": total.bad_count,
        "seconds": round(seconds, 1),
        "rate": round(total.cases / max(seconds, 0.001), 1),
        "failures": total.bad,
        "table": [
            {
                "scenario": scenario,
                "kind": kind,
                **{name: round(getattr(tally, member), 1) for name, member in COLUMNS.items()},
            }
            for (scenario, kind), tally in sorted(found.items())
        ],
    }


def run(console: Console, tasks: list[plan.Task], jobs: int, as_json: bool) -> int:
    start = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tasks · {task.fields[cases]:,} cases · {task.fields[rate]:.0f}/s · [red]{task.fields[bad]} bad"),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        line = bar.add_task("cuts", total=len(tasks), cases=0, rate=0.0, bad=0)
        counts = {"cases": 0, "bad": 0}

        def moved(cases: int) -> None:
            counts["cases"] += cases
            rate = counts["cases"] / (time.monotonic() - start)
            bar.update(line, cases=counts["cases"], rate=rate, bad=counts["bad"])

        def done(task: plan.Task, tally: Tally) -> None:
            counts["bad"] += tally.bad_count
            moved(0)
            bar.update(line, advance=1)
            if not console.is_terminal:  # of a log, which has no bar
                what = f"{task.scenario} {task.kind} {task.part}/{task.parts}"
                console.print(f"{what}: {tally.cases:,} cases, {tally.bad_count} bad, {tally.seconds:.0f} s")
            print_bad(bar.console, tally.bad[:3])

        found = play_all(tasks, jobs, moved, done)
    facts = summary(found, time.monotonic() - start)
    console.print(table_of(found))
    console.print(
        f"{facts['cases']:,} cases, {facts['states']:,} states, {facts['bad']} bad, "
        f"{facts['seconds']:.0f} s, {facts['rate']:.0f} cases/s"
    )
    if as_json:
        print(json.dumps(facts))
    return 1 if facts["bad"] else 0


def controls(console: Console) -> int:
    """Each careless strategy over all its cuts; 1 if one of them looks safe."""
    table = Table("strategy", "cases", "bad", "one of them")
    code = 0
    for name in plan.CONTROLS:
        tally = play(plan.control(name).members())
        safe = not tally.bad_count or tally.bad[0][0].endswith("/clean")
        code |= safe
        case, problem = tally.bad[0] if tally.bad else ("-", "[red]looks safe")
        table.add_row(name, f"{tally.cases:,}", f"{tally.bad_count:,}", f"{case}: {problem[:80]}")
    console.print(table)
    return code


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    console = Console(stderr=options.json)
    if options.replay:
        case = options.replay
        over = options.agent
        if case.startswith("mutant:"):
            name, _, case = case[7:].partition("/")
            with mutants.changed(name) as folder:
                tally = play({"replay": case}, over=folder)
        else:
            tally = play({"replay": case}, over=over)
        print_bad(console, tally.bad)
        console.print("bad" if tally.bad else "good: no promise was broken")
        return 1 if tally.bad else 0
    if options.mutants is not None:
        return mutants.hunt(console, options.mutants, options.jobs, options.json)
    if options.controls:
        return controls(console)
    if options.storms:
        tasks = plan.storms(options.storms, options.seed)
    else:
        tasks = plan.sample() if options.sample else plan.full()
    if options.only:
        tasks = [task for task in tasks if task.scenario == options.only]
    return run(console, tasks, options.jobs, options.json)


if __name__ == "__main__":
    sys.exit(main())
