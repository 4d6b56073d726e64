# SPDX-License-Identifier: Apache-2.0
"""Raises an exception whose text cannot be made.

expects: Nonsense|interrupted
"""


class Nonsense(Exception):
    def __str__(self):
        raise ValueError("no text")


def main():
    raise Nonsense
