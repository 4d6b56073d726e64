# SPDX-License-Identifier: Apache-2.0
"""The SQLite store: schema files, transactions, and what a transaction wants sent once it is durable.

`with store.transaction() as tx:` is the only way to change anything. On leaving the block the change is on disk
(WAL, synchronous=FULL); an exception rolls everything back, outgoing messages included.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from edgefleet.messages import Disconnect, Message, Outgoing, compact


class Tx:
    """One transaction. Services take it as their first argument and never commit themselves."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.outgoing: list[Outgoing] = []
        self.touched: set[str] = set()  # names of things whose index entry must be refreshed before commit
        self.deleted: set[str] = set()  # names of things that were deleted: what belongs to them ends with them
        self.policies_changed = False  # authorizers drop their caches after the commit

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        return self._connection.executemany(sql, rows)

    def one(self, sql: str, parameters: Any = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        row: sqlite3.Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, parameters: Any = ()) -> list[sqlite3.Row]:
        return self._connection.execute(sql, parameters).fetchall()

    def value(self, sql: str, parameters: Any = ()) -> Any:
        """The first column of the first row, or None."""
        row = self._connection.execute(sql, parameters).fetchone()
        return None if row is None else row[0]

    def reply(self, topic: str, document: Any) -> None:
        """Queue a message to the requesting connection only (`document`: bytes, or JSON-able)."""
        payload = document if isinstance(document, bytes) else compact(document)
        self.outgoing.append(Message(topic, payload, 1, True))

    def publish(self, topic: str, document: Any, qos: int = 1) -> None:
        """Queue an ordinary broker message, sent after the commit (`document`: bytes, or JSON-able)."""
        payload = document if isinstance(document, bytes) else compact(document)
        self.outgoing.append(Message(topic, payload, qos, False))

    def disconnect(self, reason: str, *, certificate_id: str | None = None, client_id: str | None = None) -> None:
        """Queue the closing of connections, done after the commit."""
        self.outgoing.append(Disconnect(reason, certificate_id, client_id))

    def touch(self, thing_name: str) -> None:
        """Say that what the fleet index knows of a thing has changed."""
        self.touched.add(thing_name)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo only this block on an exception (which goes on); used for the lines of a bulk task."""
        kept_outgoing, kept_touched, kept_deleted = len(self.outgoing), set(self.touched), set(self.deleted)
        self._connection.execute("SAVEPOINT line")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK TO line")
            self._connection.execute("RELEASE line")
            del self.outgoing[kept_outgoing:]
            self.touched, self.deleted = kept_touched, kept_deleted
            raise
        self._connection.execute("RELEASE line")


class Store:
    """The database file. Single-threaded: use it from the thread that made it."""

    def __init__(self, path: Path | str) -> None:
        """Open or create the file and bring its schema up to date."""
        self._connection = sqlite3.connect(str(path), isolation_level=None, cached_statements=512)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self.before_commit: list[Callable[[Tx], None]] = []
        self._apply_schema()

    def _apply_schema(self) -> None:
        self._connection.execute("CREATE TABLE IF NOT EXISTS schema_files (name TEXT PRIMARY KEY)")
        done = {row[0] for row in self._connection.execute("SELECT name FROM schema_files")}
        folder = resources.files("edgefleet.store") / "schema"
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".sql") and file.name not in done:
                script = file.read_text(encoding="utf-8")
                done_mark = f"INSERT INTO schema_files VALUES ('{file.name}');"  # noqa: S608 - a file of this package
                self._connection.executescript(f"BEGIN;\n{script}\n;{done_mark}\nCOMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """A durable change. Hooks of `before_commit` (the index) run inside it, just before the commit."""
        self._connection.execute("BEGIN IMMEDIATE")
        tx = Tx(self._connection)
        try:
            yield tx
            for hook in self.before_commit:
                hook(tx)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def reading(self) -> Iterator[Tx]:
        """A consistent read; writing in it is an error of ours and is rolled back."""
        self._connection.execute("BEGIN")
        try:
            yield Tx(self._connection)
        finally:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()
