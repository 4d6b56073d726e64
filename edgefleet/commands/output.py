# SPDX-License-Identifier: Apache-2.0
"""How commands print: tables for people on a terminal, JSON for machines."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout; datetimes become ISO 8601."""
    sys.stdout.write(json.dumps(value, indent=2, default=_plain) + "\n")


def print_json_line(value: Any) -> None:
    """One line of NDJSON on stdout, at once."""
    sys.stdout.write(json.dumps(value, separators=(",", ":"), default=_plain) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _text(value: str, style: str = "") -> Text:
    """What others have written cannot steer the terminal: control characters are shown as `\\x1b`, lines stay lines."""
    kept = (
        char if char in "\n\t" or unicodedata.category(char)[0] != "C" else char.encode("unicode_escape").decode()
        for char in value
    )
    return Text("".join(kept), style=style)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], where: Console = console) -> None:
    """Values are shown as they are: nothing a device reports is taken for markup."""
    table = Table(*columns, box=None, padding=(0, 2), header_style="bold")
    for row in rows:
        table.add_row(*(_text("" if value is None else str(value)) for value in row))
    where.print(table)


def say(text: str, style: str = "") -> None:
    console.print(_text(text, style), soft_wrap=True)


def complain(text: str) -> None:
    """One line on stderr."""
    errors.print(_text(f"edgefleet: {text}"), soft_wrap=True)
