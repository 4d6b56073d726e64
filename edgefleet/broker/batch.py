# SPDX-License-Identifier: Apache-2.0
"""Group commit: the writes of one turn of the event loop become one transaction.

The broker sends nothing during a turn; at its end it commits and only then lets the output of the connections go. So
whatever a peer sees acknowledged is on disk, at one fsync a turn instead of one a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgefleet.store import Store, Tx

Write = Callable[[Tx], Any]


class Batch:
    def __init__(self, store: Store, wake: Callable[[], None]) -> None:
        """wake: leads to commit() and then run_after() soon; called again and again."""
        self.wake = wake
        self._store = store
        self._writes: list[Write] = []
        self._after: list[Callable[[], None]] = []
        self._owners: set[Any] = set()

    def add(self, write: Write, owner: Any = None) -> None:
        """owner: who must not be acknowledged if the commit fails; None if nobody waits."""
        if owner is not None:
            self._owners.add(owner)
        self._writes.append(write)
        self.wake()

    def after(self, action: Callable[[], None]) -> None:
        """Run `action` when everything added so far has been tried."""
        self._after.append(action)
        self.wake()

    def commit(self) -> Tx | None:
        """Write everything added so far. Returns the finished transaction, whose hooks may want messages sent; None
        if there was nothing to write. Raises BatchFailed.
        """
        writes, self._writes = self._writes, []
        owners, self._owners = self._owners, set()
        if not writes:
            return None
        try:
            with self._store.transaction() as tx:
                for write in writes:
                    write(tx)
        except Exception as error:
            raise BatchFailed(owners) from error
        return tx

    def run_after(self) -> None:
        actions, self._after = self._after, []
        for action in actions:
            action()


class BatchFailed(Exception):
    """Nothing of the batch is stored; `owners` must not be acknowledged."""

    def __init__(self, owners: set[Any]) -> None:
        super().__init__("a batch of the broker was not stored")
        self.owners = owners
