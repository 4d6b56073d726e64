# SPDX-License-Identifier: Apache-2.0
"""What cannot be read is neither absent nor empty: nothing is overwritten, deleted or given up for it.

A folder where a file should be can be opened or read on no runtime, and the error is not ENOENT.
"""

import os
import unittest

from edgeagent import compat, log
from edgeagent.errors import UpdateError
from edgeagent.ota import index, safety, trial
from edgeagent.ota.slots import Slots
from tests.portable.ota_support import damage, entries, fill, fresh, slot_contents

A1 = "11" * 32
A2 = "22" * 32
OLD = {"app.mpy": b"old", "same.mpy": b"same"}
BLOCK = 512
NEW = {"app.mpy": b"new", "same.mpy": b"same"}


class Case(unittest.TestCase):
    def setUp(self):
        self.root = fresh("faults")
        self.slots = Slots(self.root)
        log.configure(100)

    def tearDown(self):
        compat.remove_tree(self.root)
        trial.Running.slot = None
        log.configure(log.INFO)

    def unreadable(self, name):
        """A function that makes it readable again."""
        path = self.root + "/" + name
        os.rename(path, path + ".aside")
        os.mkdir(path)

        def mend():
            os.rmdir(path)
            os.rename(path + ".aside", path)

        return mend

    def update(self, artifact=A1, version="2.0.0"):
        fill(self.slots.prepare(artifact), NEW)
        self.slots.complete(artifact, version, 0)
        self.slots.activate(version, "job/1", 60, "1.0.0")

    def content(self, slot, path):
        for name, _, stored in entries(self.root + "/" + slot):
            if name == path:
                return self.root + "/store/" + stored
        raise KeyError(path)


class Knowing(Case):
    def test_a_file_that_is_not_there_has_no_mode(self):
        with open(self.root + "/file", "wb"):
            pass
        self.assertEqual(compat.exists(self.root + "/nothing"), 0)
        self.assertEqual(compat.exists(self.root + "/file/below"), 0)

    def test_any_other_failure_does_not_mean_that_nothing_is_there(self):
        self.assertRaises(OSError, compat.exists, self.root + "/" + "x" * 5000)

    def test_a_slot_that_cannot_be_read_is_neither_filled_nor_empty(self):
        fill(self.root + "/a", OLD)
        mend = self.unreadable("a.idx")
        self.assertRaises(OSError, trial.filled, self.root, "a")
        mend()
        self.assertTrue(trial.filled(self.root, "a"))


class Trial(Case):
    def test_its_end_keeps_the_way_back_when_that_cannot_be_read(self):
        fill(self.root + "/a", OLD)
        self.update()
        trial.boot(self.root)
        mend = self.unreadable("a.idx")
        trial.failed(self.root, "broken")
        mend()
        self.assertEqual(trial.status(self.root)["active"], "a")
        self.assertEqual(trial.boot(self.root), self.root + "/a")

    def test_the_first_version_has_none(self):
        self.update()
        trial.failed(self.root, "broken")
        self.assertIsNone(trial.status(self.root)["active"])

    def test_it_ends_on_a_full_disk_whatever_is_active(self):
        document = trial.status(self.root)
        document["state"] = "trial"
        trial.save(self.root, document)
        save, errors = trial.save, [OSError(28, "full")]

        def full(root, document):
            if errors:
                raise errors.pop()
            save(root, document)

        trial.save = full
        try:
            self.assertTrue(trial.failed(self.root, "broken"))
        finally:
            trial.save = save
        self.assertEqual(trial.status(self.root)["state"], "rolled_back")


class Booting(Case):
    def test_when_no_slot_can_be_judged_the_bare_agent_runs_for_a_time(self):
        fill(self.root + "/a", OLD)
        mend = self.unreadable("a.idx")
        self.assertEqual(safety.choose(self.root, "app", ""), (None, safety.BARE_S))
        self.assertEqual(trial.Running.slot, "")
        mend()
        self.assertEqual(trial.boot(self.root), self.root + "/a")


class Filling(Case):
    def test_the_first_update_fills_no_slot_while_it_is_unknown_what_runs(self):
        fill(self.root + "/a", OLD)
        mend = self.unreadable("a.idx")
        self.assertRaises(OSError, self.slots.prepare, A1)
        mend()
        self.assertEqual(slot_contents(self.root + "/a"), OLD)

    def test_the_running_slot_is_kept_when_the_active_one_is_lost(self):
        fill(self.root + "/a", OLD)
        self.update()
        trial.confirm(self.root)
        damage(self.root + "/b.idx", 20)
        self.assertEqual(trial.boot(self.root), self.root + "/a")
        self.assertEqual(self.slots.prepare(A2), self.root + "/b")
        self.assertEqual(slot_contents(self.root + "/a"), OLD)
        # And it is what the next boot starts, until the other one is activated.
        fill(self.root + "/b", NEW)
        self.assertEqual(trial.boot(self.root), self.root + "/a")

    def test_nothing_is_filled_while_something_else_runs_than_should(self):
        fill(self.root + "/a", OLD)
        self.update()
        trial.confirm(self.root)
        trial.Running.slot = "a"  # its index was misread at the start
        with self.assertRaises(UpdateError) as caught:
            self.slots.prepare(A2)
        self.assertEqual(str(caught.exception), "slot: a restart is needed")
        self.assertEqual(slot_contents(self.root + "/b"), NEW)


class Cleaning(Case):
    def setUp(self):
        Case.setUp(self)
        fill(self.root + "/a", OLD)
        fill(self.root + "/b", NEW)

    def test_what_neither_slot_names_goes(self):
        with open(self.root + "/store/" + "0" * 32, "wb"):
            pass
        index.clean(self.root + "/b")
        self.assertEqual(slot_contents(self.root + "/a"), OLD)
        self.assertEqual(slot_contents(self.root + "/b"), NEW)
        self.assertEqual(compat.exists(self.root + "/store/" + "0" * 32), 0)

    def test_nothing_goes_for_an_index_that_was_cut_short_or_is_damaged(self):
        with open(self.root + "/a.idx", "rb") as f:
            good = f.read()
        for size in range(len(good)):
            with open(self.root + "/a.idx", "wb") as f:
                f.write(good[:size])
            index.clean(self.root + "/b")
        for at in range(len(good)):
            with open(self.root + "/a.idx", "wb") as f:
                f.write(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            index.clean(self.root + "/b")
        with open(self.root + "/a.idx", "wb") as f:
            f.write(good)
        self.assertEqual(slot_contents(self.root + "/a"), OLD)

    def test_nothing_goes_for_an_index_that_cannot_be_read(self):
        mend = self.unreadable("a.idx")
        index.clean(self.root + "/b")
        mend()
        self.assertEqual(slot_contents(self.root + "/a"), OLD)

    def test_a_slot_without_an_index_keeps_nothing(self):
        old = self.content("a", "app.mpy")
        os.remove(self.root + "/a.idx")
        index.clean(self.root + "/b")
        self.assertEqual(compat.exists(old), 0)


class Disk:
    """A RAM disk of small blocks, so that a folder has many of them."""

    def __init__(self, blocks):
        self.data = bytearray(BLOCK * blocks)

    def readblocks(self, block, buffer, offset=0):
        at = BLOCK * block + offset
        buffer[:] = self.data[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = BLOCK * block + offset
        self.data[at : at + len(buffer)] = buffer

    def ioctl(self, operation, argument):
        if operation == 4:
            return len(self.data) // BLOCK
        return BLOCK if operation == 5 else 0


class Littlefs(unittest.TestCase):
    """A folder of littlefs is deleted from while it is listed: none may be passed over for it, none go by mistake."""

    MOUNT = "/lfs-store"

    def of_many_files_the_store_is_cleaned_of_all_that_is_not_named(self):
        import vfs

        for count, keep in ((150, 0), (256, 3), (256, 2), (130, 1)):
            disk = Disk(1200)
            vfs.VfsLfs2.mkfs(disk)
            vfs.mount(vfs.VfsLfs2(disk), self.MOUNT)
            try:
                self.clean(count, keep)
            finally:
                vfs.umount(self.MOUNT)

    if compat.MICROPYTHON:  # whose littlefs it is
        test_a_store_of_many_files = of_many_files_the_store_is_cleaned_of_all_that_is_not_named

    def clean(self, count, keep):
        """keep: every so many of the files is of slot a; 0 for none."""
        old = {}
        wanted = {}
        for number in range(count):
            # Some of them are inside of the folder's blocks, some have their own.
            old["%d.mpy" % number] = b"%d" % number * (1 if number % 5 else 400)
            if keep and number % keep == 0:
                wanted["%d.mpy" % number] = old["%d.mpy" % number]
        fill(self.MOUNT + "/b", old)
        os.remove(self.MOUNT + "/b.idx")
        fill(self.MOUNT + "/a", wanted)
        fill(self.MOUNT + "/b", NEW)
        index.clean(self.MOUNT + "/b")
        self.assertEqual(slot_contents(self.MOUNT + "/a"), wanted)
        self.assertEqual(slot_contents(self.MOUNT + "/b"), NEW)
        self.assertEqual(len(os.listdir(self.MOUNT + "/store")), len(wanted) + len(NEW))
