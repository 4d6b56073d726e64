# SPDX-License-Identifier: Apache-2.0
"""Format a flash image and copy a folder onto it, with the board's own littlefs: `mkflash.py IMAGE FOLDER`."""

import os
import sys

import vfs
from flash import Flash


def _copy(source, filesystem, target):
    for name in sorted(os.listdir(source)):
        path = source + "/" + name
        if os.stat(path)[0] & 0x4000:
            filesystem.mkdir(target + "/" + name)
            _copy(path, filesystem, target + "/" + name)
            continue
        with open(path, "rb") as file, filesystem.open(target + "/" + name, "wb") as copy:
            while True:
                data = file.read(4096)
                if not data:
                    break
                copy.write(data)


device = Flash(sys.argv[1])
vfs.VfsLfs2.mkfs(device)
_copy(sys.argv[2], vfs.VfsLfs2(device), "")
