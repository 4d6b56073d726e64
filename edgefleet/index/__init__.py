# SPDX-License-Identifier: Apache-2.0
"""The fleet index: every thing searchable by what registry, shadows and broker know of it (section 8)."""

from edgefleet.index.index import Index

__all__ = ["Index"]
