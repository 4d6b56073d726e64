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
filesystem = vfs.VfsLfs2(device)
_copy(sys.argv[2], filesystem, "")
# Modules that a chip has in ROM and loads when they are asked for; the host's folder is out of reach by then.
filesystem.mkdir("/.rom")
for module in sys.argv[3:]:
    with open(module, "rb") as file, filesystem.open("/.rom/" + module[module.rfind("/") + 1 :], "wb") as copy:
        copy.write(file.read())
