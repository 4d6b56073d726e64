# SPDX-License-Identifier: Apache-2.0
"""Keeping the index in step with what it shows, and reading it.

`refresh` runs inside the transaction that changed a thing, just before its commit: a search never sees a thing before
its change is durable, nor misses one after.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from edgefleet.index import documents, planner
from edgefleet.index.query import Node
from edgefleet.index.values import Term
from edgefleet.store import Tx


class Index:
    """Hook it up with `store.before_commit.append(lambda tx: index.refresh(tx, tx.touched))`."""

    def refresh(self, tx: Tx, names: Iterable[str]) -> None:
        """Bring the entries of some things up to date; those of deleted things go."""
        for name in sorted(names):
            built = documents.build(tx, name)
            if built is None:
                tx.execute("DELETE FROM index_things WHERE thing_name = ?", (name,))
            else:
                store(tx, name, *built)

    def rebuild(self, tx: Tx) -> int:
        """Throw everything away and read the whole registry again. Returns the number of things."""
        tx.execute("DELETE FROM index_terms")
        tx.execute("DELETE FROM index_things")
        names = [row[0] for row in tx.all("SELECT name FROM things")]
        self.refresh(tx, names)
        return len(names)

    def search(self, tx: Tx, query: Node, after: str, limit: int) -> list[tuple[str, dict[str, Any]]]:
        """(name, document) of the matching things whose name is above `after`, by name."""
        matching, parameters = planner.plan(query)
        rows = tx.all(
            f"{matching} SELECT thing_name, document FROM index_things WHERE id IN (SELECT thing FROM matching)"  # noqa: S608
            " AND thing_name > ? ORDER BY thing_name LIMIT ?",
            (*parameters, after, limit),
        )
        return [(row["thing_name"], json.loads(row["document"])) for row in rows]

    def count(self, tx: Tx, query: Node) -> int:
        """How many things match."""
        matching, parameters = planner.plan(query)
        return int(tx.value(f"{matching} SELECT count(DISTINCT thing) FROM matching", parameters))  # noqa: S608

    def terms_of(self, tx: Tx, query: Node, field: str) -> list[Term]:
        """All values of a field among the matching things."""
        matching, parameters = planner.plan(query)
        rows = tx.all(
            f"{matching} SELECT field, value, shown, number, kind, anywhere FROM index_terms"  # noqa: S608
            " WHERE field = ? AND thing IN (SELECT thing FROM matching)",
            (*parameters, field),
        )
        return [_term(row) for row in rows]


def store(tx: Tx, name: str, document: dict[str, Any], terms: Iterable[Term]) -> None:
    """Write the entry of a thing, touching only the terms that differ: a report of one value costs one row or two."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    thing = tx.value(
        "INSERT INTO index_things (thing_name, document) VALUES (?, ?)"
        " ON CONFLICT (thing_name) DO UPDATE SET document = excluded.document RETURNING id",
        (name, text),
    )
    wanted = set(terms)
    rows = tx.all("SELECT field, value, shown, number, kind, anywhere FROM index_terms WHERE thing = ?", (thing,))
    present = {_term(row) for row in rows}
    tx.executemany(
        "DELETE FROM index_terms WHERE field = ? AND value = ? AND kind = ? AND thing = ?",
        [(one.field, one.value, one.kind, thing) for one in present - wanted],
    )
    tx.executemany(
        "INSERT INTO index_terms (thing, field, value, shown, number, kind, anywhere) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(thing, *one) for one in wanted - present],
    )


def _term(row: sqlite3.Row) -> Term:
    return Term(row["field"], row["value"], row["shown"], row["number"], row["kind"], bool(row["anywhere"]))
