# SPDX-License-Identifier: Apache-2.0
import unittest

from edgeagent import compat
from edgeagent.errors import JobFailed
from edgeagent.jobs.journal import Journal
from tests.portable.job_service import FOLDER, Fuse, PowerCut, wipe

PATH = FOLDER + "/job.json"


def record(status="IN_PROGRESS", **data):
    return {
        "jobId": "j",
        "executionNumber": 1,
        "bootId": "boot-1",
        "operation": "x",
        "status": status,
        "data": data,
    }


class Keeping(unittest.TestCase):
    def setUp(self):
        wipe()

    def tearDown(self):
        wipe()

    def test_nothing_was_written_yet(self):
        self.assertIsNone(Journal(PATH).read())

    def test_a_record_comes_back_as_it_was_written(self):
        Journal(PATH).write(record(text='ü "\n', number=7, flag=True))
        self.assertEqual(Journal(PATH).read(), record(text='ü "\n', number=7, flag=True))

    def test_a_later_record_replaces_the_earlier_one(self):
        journal = Journal(PATH)
        journal.write(record("IN_PROGRESS"))
        journal.write(record("FAILED"))
        self.assertEqual(journal.read()["status"], "FAILED")

    def test_a_cleared_journal_is_empty_and_may_be_cleared_again(self):
        journal = Journal(PATH)
        journal.write(record())
        journal.clear()
        journal.clear()
        self.assertIsNone(journal.read())

    def test_every_flipped_byte_makes_it_count_as_absent(self):
        Journal(PATH).write(record(n=1))
        whole = compat.read_file(PATH, 9999)
        for at in range(len(whole)):
            damaged = bytearray(whole)
            damaged[at] ^= 1
            compat.write_atomic(PATH, damaged)
            self.assertIsNone(Journal(PATH).read(), "byte %d" % at)

    def test_every_truncation_makes_it_count_as_absent(self):
        Journal(PATH).write(record(n=1))
        whole = compat.read_file(PATH, 9999)
        for size in range(len(whole)):
            compat.write_atomic(PATH, whole[:size])
            self.assertIsNone(Journal(PATH).read(), "%d bytes" % size)

    def test_a_record_over_the_cap_is_refused_and_the_old_one_stays(self):
        journal = Journal(PATH)
        journal.write(record(n=1))
        with self.assertRaises(JobFailed) as caught:
            journal.write(record(text="x" * 8192))
        self.assertIn("checkpoint is larger than", str(caught.exception))
        self.assertEqual(journal.read(), record(n=1))

    def test_a_power_cut_at_any_operation_of_a_write_leaves_the_old_or_the_new_record(self):
        seen = set()
        for mode in ("before", "torn", "after"):
            at = 0
            cut = True
            while cut:
                at += 1
                wipe()
                Journal(PATH).write(record("IN_PROGRESS"))
                with Fuse(at, mode):
                    try:
                        Journal(PATH).write(record("FAILED"))
                        cut = False
                    except PowerCut:
                        pass
                status = Journal(PATH).read()["status"]
                self.assertIn(status, ("IN_PROGRESS", "FAILED"))
                seen.add(status)
            self.assertEqual(status, "FAILED")
        self.assertEqual(len(seen), 2)


if __name__ == "__main__":
    unittest.main()
