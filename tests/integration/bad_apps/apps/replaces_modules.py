# SPDX-License-Identifier: Apache-2.0
"""Puts nonsense into sys.modules, and crashes.

expects: interrupted|RuntimeError
"""

import sys


def main():
    for name in list(sys.modules):
        sys.modules[name] = None
    raise RuntimeError("modules")
