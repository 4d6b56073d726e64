# SPDX-License-Identifier: Apache-2.0
"""Fills the file system, then hangs: its boots cannot be counted.

expects: interrupted|cannot be counted
"""


def main():
    n = 0
    for size in (16384, 1024, 200, 10):
        try:
            while True:
                with open("/data%d" % n, "wb") as f:
                    f.write(b"x" * size)
                n += 1
        except OSError:
            pass
    while True:
        pass
