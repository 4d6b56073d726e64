# SPDX-License-Identifier: Apache-2.0
"""Fills the file system, then crashes: the state of the trial has no room either.

expects: ENOSPC|OSError|RuntimeError
"""

from shared.fill import fill


def main():
    fill("/data")
    raise RuntimeError("flash is full")
