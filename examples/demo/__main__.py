# SPDX-License-Identifier: Apache-2.0
"""`python -m examples.demo`: tells the story, prints the table, and `DEMO {json}` as the very last line."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from rich.console import Console

from edgefleet.errors import FleetError
from examples.demo.processes import DemoError
from examples.demo.story import Story, fresh
from hil.virtual_board import BoardError

_asked_to_stop: list[int] = []


def _interrupted(number: int, _frame: FrameType | None) -> None:
    _asked_to_stop.append(number)  # what is raised in a finaliser of a library is lost
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where everything is kept (wiped first)")
    parser.add_argument("--devices", type=int, default=1200, help="good lines of the factory file, at least 10")
    parser.add_argument("--heap", default="160k", help="heap of the virtual boards, as MicroPython's -X heapsize")
    arguments = parser.parse_args()
    if arguments.devices < 10:
        parser.error("--devices: must be at least 10")
    console = Console(width=None if sys.stdout.isatty() else 140)
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _interrupted)
    started = time.monotonic()
    story = Story(fresh(arguments.folder).resolve(), console, arguments.devices, arguments.heap)
    code = 1
    try:
        for number, chapter in enumerate(Story.CHAPTERS, 1):
            console.print(f"[bold cyan]{number:2}. {chapter.__doc__}[/]", highlight=False)
            began = time.monotonic()
            chapter(story)
            console.print(f"    [green]✓[/] [dim]{time.monotonic() - began:.1f} s[/]", highlight=False)
            if _asked_to_stop:
                raise KeyboardInterrupt
        console.print(story.summary())
        code = 0
    except (DemoError, BoardError, FleetError) as error:
        console.print(f"[bold red]The demo failed:[/] {error}", highlight=False)
    except KeyboardInterrupt:
        console.print("[bold red]Interrupted.[/]")
        code = 130
    finally:
        story.close()
    result = {**story.facts, "jobs": story.jobs, "seconds": round(time.monotonic() - started, 1)}
    console.print(f"Logs and data: {story.folder}", highlight=False)
    sys.stdout.write(f"DEMO {json.dumps(result)}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
