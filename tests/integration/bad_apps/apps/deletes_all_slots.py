# SPDX-License-Identifier: Apache-2.0
"""Deletes everything below /slots, then hangs.

expects: None | None
"""

import os


def remove(path):
    if os.stat(path)[0] & 0x4000:
        for name in os.listdir(path):
            remove(path + "/" + name)
        os.rmdir(path)
    else:
        os.remove(path)


def main():
    remove("/slots")
    while True:
        pass
