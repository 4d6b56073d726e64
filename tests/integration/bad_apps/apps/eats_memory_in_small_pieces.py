# SPDX-License-Identifier: Apache-2.0
"""Fills the heap with many small objects.

expects: MemoryError
"""

keep = []


def main():
    n = 0
    while True:
        n += 1
        keep.append("%d" % n)
