# SPDX-License-Identifier: Apache-2.0
"""Fills the file system, then hangs: its boots cannot be counted.

expects: interrupted|cannot be counted
"""

from shared.fill import fill


def main():
    fill("/data")
    while True:
        pass
