# SPDX-License-Identifier: Apache-2.0
"""Deletes agent.json, and hangs.

expects: OSError: .*ENOENT|interrupted
"""

import os


def main():
    os.remove("/agent.json")
    while True:
        pass
