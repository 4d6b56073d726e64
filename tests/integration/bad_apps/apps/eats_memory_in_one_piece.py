# SPDX-License-Identifier: Apache-2.0
"""Wants more memory than there is.

expects: MemoryError
"""


def main():
    return bytearray(100_000_000)
