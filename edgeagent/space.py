# SPDX-License-Identifier: Apache-2.0
"""Room in a file system. Loaded when it is asked for."""

import os

from edgeagent.compat import MICROPYTHON


def free(path: str) -> int:
    """Bytes that can still be written where `path` is. Raises OSError."""
    facts = os.statvfs(path)
    if not MICROPYTHON or facts[5]:  # littlefs has no number of files
        return facts[1] * facts[4]
    # It counts the two blocks of each folder but the first twice (micropython#8364), and then may have less than none.
    blocks = facts[4] - (facts[4] >> 31 << 32) - 2
    todo = [path.partition("/slots")[0] or "/"]
    while todo:
        folder = todo.pop()
        for entry in os.ilistdir(folder):  # type: ignore[attr-defined]
            if entry[1] == 0x4000:
                blocks += 2
                todo.append(folder.rstrip("/") + "/" + entry[0])
    return facts[1] * max(blocks, 0)
