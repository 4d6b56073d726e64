# SPDX-License-Identifier: Apache-2.0
"""Leaves no room in the file system."""


def fill(prefix):
    """Write files, named `prefix` and a number, until not even ten bytes have room."""
    n = 0
    for size in (8192, 1024, 200, 10):
        try:
            while True:
                with open(prefix + "%d" % n, "wb") as f:
                    f.write(b"x" * size)
                n += 1
        except OSError:
            pass
