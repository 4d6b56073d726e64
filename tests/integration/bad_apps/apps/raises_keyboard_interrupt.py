# SPDX-License-Identifier: Apache-2.0
"""Raises KeyboardInterrupt, as if somebody were at the console.

expects: KeyboardInterrupt
"""


def main():
    raise KeyboardInterrupt
