# SPDX-License-Identifier: Apache-2.0
"""Replaces __import__ so that nothing can be loaded, and crashes.

expects: interrupted|RuntimeError
"""

import builtins


def broken(*_):
    raise ImportError("no")


def main():
    builtins.__import__ = broken
    raise RuntimeError("imports")
