# SPDX-License-Identifier: Apache-2.0
"""Free space, on the flash file system of boards too."""

import os
import unittest

from edgeagent import compat, space

if compat.MICROPYTHON:
    import vfs

BLOCKS = 96
PLACE = "/space-test"


class Ram:
    def __init__(self):
        self.data = bytearray(4096 * BLOCKS)

    def readblocks(self, block, buf, offset=0):
        at = 4096 * block + offset
        buf[:] = self.data[at : at + len(buf)]

    def writeblocks(self, block, buf, offset=0):
        at = 4096 * block + offset
        self.data[at : at + len(buf)] = buf

    def ioctl(self, operation, argument):
        return {4: BLOCKS, 5: 4096}.get(operation, 0)


class Littlefs(unittest.TestCase):
    def setUp(self):
        flash = Ram()
        vfs.VfsLfs2.mkfs(flash)
        vfs.mount(vfs.VfsLfs2(flash), PLACE)

    def tearDown(self):
        vfs.umount(PLACE)

    def test_what_is_free_can_be_written_and_no_more_however_many_folders_there_are(self):
        for folders in (0, 3, 12):
            for number in range(folders):
                compat.make_dirs(PLACE + "/slots/%d/%d" % (folders, number))
            free = space.free(PLACE + "/slots") // 4096
            with open(PLACE + "/large", "wb") as f:
                written = self.fill(f)
            os.remove(PLACE + "/large")
            self.assertTrue(0 <= written - free <= 2, "%d folders: %d free, %d written" % (folders, free, written))

    def test_a_full_one_has_less_than_a_block_for_each_folder(self):
        for number in range(20):
            compat.make_dirs(PLACE + "/slots/%d" % number)
        with open(PLACE + "/large", "wb") as f:
            self.fill(f)
        self.assertTrue(0 <= space.free(PLACE + "/slots") <= 2 * 4096)

    def fill(self, f):
        written = 0
        try:
            while True:
                f.write(bytes(4096))
                f.flush()
                written += 1
        except OSError:
            return written


if not compat.MICROPYTHON:
    del Littlefs  # of boards


class Host(unittest.TestCase):
    def test_it_is_what_users_may_fill(self):
        facts = os.statvfs(".")
        free = facts[1] * facts[4]
        self.assertTrue(abs(space.free(".") - free) < free // 2)
