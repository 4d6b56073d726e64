# SPDX-License-Identifier: Apache-2.0
"""Calls itself without end.

expects: recursion
"""


def f():
    return f() + 1


def main():
    f()
