# SPDX-License-Identifier: Apache-2.0
"""Fills the heap with lists while it is imported.

expects: MemoryError|interrupted: HARD_RESET
"""

keep = []
while True:
    keep.append([0] * 50)
