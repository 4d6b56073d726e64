# SPDX-License-Identifier: Apache-2.0
"""Leaves modules in / that are named like the agent's and the runtime's.

expects: RuntimeError: shadows
"""


def main():
    for name in ("edgeagent", "json", "hashlib", "asyncio", "os", "time"):
        with open("/" + name + ".py", "w") as f:
            f.write("raise ValueError('shadow')")
    raise RuntimeError("shadows")
