# SPDX-License-Identifier: Apache-2.0
"""Ends the program again and again.

expects: sys.exit
"""

import sys


def main():
    sys.exit()
