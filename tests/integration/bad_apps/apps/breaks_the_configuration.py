# SPDX-License-Identifier: Apache-2.0
"""Writes rubbish into agent.json, and crashes.

expects: RuntimeError: saved
"""


def main():
    with open("/agent.json", "w") as f:
        f.write("{ nothing of the sort")
    raise RuntimeError("saved")
