# SPDX-License-Identifier: Apache-2.0
"""Pages of registry lists: keyset pagination over one text column that is unique within the list."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from edgefleet import paging
from edgefleet.store import Tx

MOST = 250  # maxResults and pageSize of the registry's lists


def page(
    tx: Tx,
    select: str,
    parameters: Sequence[Any],
    key: str,
    token: str | None,
    size: int | None,
    *,
    descending: bool = False,
    size_name: str = "maxResults",
) -> tuple[list[sqlite3.Row], str | None]:
    """(rows, token of the next page or None).

    select: a statement that already has a WHERE clause and no ORDER BY; key: the column to page by.
    Raises InvalidRequestException for a bad token or size.
    """
    limit = paging.limit(size, MOST, size_name)
    after = paging.decode(token, str)
    order, relation = ("DESC", "<") if descending else ("ASC", ">")
    values = list(parameters)
    if after is not None:
        select += f" AND {key} {relation} ?"
        values.append(after[0])
    rows = tx.all(f"{select} ORDER BY {key} {order} LIMIT ?", [*values, limit + 1])
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], paging.encode(rows[limit - 1][key.rpartition(".")[2]])


def with_token(result: dict[str, Any], token: str | None, member: str = "nextToken") -> dict[str, Any]:
    """An absent token is the last page; an empty one would make clients loop (section 2.10)."""
    if token is not None:
        result[member] = token
    return result
