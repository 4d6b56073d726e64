# SPDX-License-Identifier: Apache-2.0
"""Deletes everything below /state, and crashes.

expects: RuntimeError: state
"""

import os


def main():
    for name in os.listdir("/state"):
        os.remove("/state/" + name)
    os.rmdir("/state")
    with open("/state", "w") as f:
        f.write("not a folder")
    raise RuntimeError("state")
