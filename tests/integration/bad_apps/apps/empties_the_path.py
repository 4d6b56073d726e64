# SPDX-License-Identifier: Apache-2.0
"""Empties sys.path, and crashes.

expects: interrupted|RuntimeError
"""

import sys


def main():
    sys.path[:] = []
    raise RuntimeError("path")
