# SPDX-License-Identifier: Apache-2.0
"""Raises, and raises again while it cleans up.

expects: KeyError
"""


def main():
    try:
        1 / 0  # noqa: B018
    finally:
        {}["gone"]
