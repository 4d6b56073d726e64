# SPDX-License-Identifier: Apache-2.0
"""Replaces open() and crashes: nothing can be written down.

expects: interrupted
"""

import builtins


def broken(*_):
    raise OSError(5)


def main():
    builtins.open = broken
    raise RuntimeError("not to be written down")
