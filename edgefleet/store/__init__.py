# SPDX-License-Identifier: Apache-2.0
"""Durable state: one SQLite file, one writer, every acknowledged change committed before it is acknowledged."""

from edgefleet.store.database import Store, Tx

__all__ = ["Store", "Tx"]
