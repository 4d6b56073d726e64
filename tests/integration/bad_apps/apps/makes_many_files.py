# SPDX-License-Identifier: Apache-2.0
"""Makes files until a folder has hundreds, then crashes.

expects: RuntimeError: enough
"""


def main():
    for n in range(400):
        with open("/state/file%d" % n, "w") as f:
            f.write("x")
    raise RuntimeError("enough")
