# SPDX-License-Identifier: Apache-2.0
"""Confirms its own trial, then hangs at every start.

expects: confirmed | None
"""

from edgeagent.ota import trial


def main():
    trial.confirm("/slots")
    while True:
        pass
