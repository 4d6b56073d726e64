# SPDX-License-Identifier: Apache-2.0
"""Deletes the way back, then crashes: only the bare agent is left.

expects: RuntimeError: no way back
"""

import os


def main():
    os.remove("/slots/a/app.py")
    os.rmdir("/slots/a")
    raise RuntimeError("no way back")
