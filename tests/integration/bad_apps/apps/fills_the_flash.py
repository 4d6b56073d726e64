# SPDX-License-Identifier: Apache-2.0
"""Fills the file system, then crashes: the state of the trial has no room either.

expects: ENOSPC|OSError|RuntimeError
"""


def main():
    n = 0
    try:
        while True:
            with open("/data%d" % n, "wb") as f:
                f.write(b"x" * 8192)
            n += 1
    except OSError:
        pass
    for size in (1024, 200, 10):
        try:
            while True:
                with open("/data%d" % n, "wb") as f:
                    f.write(b"x" * size)
                n += 1
        except OSError:
            pass
    raise RuntimeError("flash is full")
