# SPDX-License-Identifier: Apache-2.0
"""Deletes both copies of the state and crashes.

expects: None | None
"""

import os


def main():
    os.remove("/slots/state.json")
    os.remove("/slots/state.bak")
    raise RuntimeError("state is gone")
