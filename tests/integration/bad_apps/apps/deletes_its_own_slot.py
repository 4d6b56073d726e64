# SPDX-License-Identifier: Apache-2.0
"""Deletes the slot it runs from, then hangs.

expects: the slot is empty|interrupted
"""

import os


def main():
    for name in os.listdir("/slots/b"):
        os.remove("/slots/b/" + name)
    while True:
        pass
