# SPDX-License-Identifier: Apache-2.0
"""What the outbox keeps, in which order, and what it lets go when it is full."""

import os
import unittest

from edgeagent import compat, log, outbox
from edgeagent.outbox import Outbox

PATH = "outbox-test/box"


def make(max_bytes=1 << 20, max_records=100000, buffer=1024, oldest=True):
    return Outbox(PATH, max_bytes, max_records, buffer, oldest)


def fill(box, first, count, size=40):
    """Records "[n,xxx]" with n from `first`; how many were taken."""
    taken = 0
    for n in range(first, first + count):
        text = b"[%d," % n
        taken += box.append(text + b"1" * (size - len(text) - 1) + b"]")
    return taken


def numbers(text):
    """n of each record of a message."""
    import json

    return [record[0] for record in json.loads(b"[" + text + b"]")]


def drain(box, size=2000):
    """Take and acknowledge all; [(number of the first, records' n)]."""
    found = []
    while True:
        taken = box.take(size)
        if not taken:
            return found
        number, count, text = taken
        found.append((number, numbers(text)))
        if len(found[-1][1]) != count:
            raise AssertionError("%d records, not %d" % (len(found[-1][1]), count))
        box.ack(number + count)


def all_of(found):
    values = []
    for _, some in found:
        values += some
    return values


def segments():
    return sorted(name for name in os.listdir(PATH) if len(name) == 16)


class Case(unittest.TestCase):
    def setUp(self):
        compat.remove_tree("outbox-test")

    def tearDown(self):
        compat.remove_tree("outbox-test")


class Queue(Case):
    def test_records_come_out_in_order_and_once(self):
        box = make()
        fill(box, 0, 500)
        found = drain(box)
        self.assertEqual(all_of(found), list(range(500)))
        self.assertIsNone(box.take(2000))
        self.assertEqual((box.records, box.stored, box.buffered, box.dropped), (0, 0, 0, 0))

    def test_each_record_has_the_number_after_the_one_before(self):
        box = make()
        fill(box, 0, 300)
        for number, values in drain(box):
            self.assertEqual(number, values[0])

    def test_what_was_taken_comes_again_until_it_is_acknowledged(self):
        box = make()
        fill(box, 0, 100)
        first = box.take(500)
        self.assertEqual(box.take(500), first)
        box.ack(first[0] + first[1])
        self.assertEqual(box.take(500)[0], first[0] + first[1])

    def test_a_message_is_filled_to_about_its_size(self):
        box = make(buffer=512)
        fill(box, 0, 400)
        sizes = [len(box.take(2000)[2])]
        for size in sizes:
            self.assertGreater(size, 1400)
            self.assertLess(size, 2000 + 512)

    def test_records_that_were_not_flushed_can_be_delivered_without_touching_the_flash(self):
        box = make()
        for round in range(50):
            fill(box, round * 10, 10)
            drain(box)
        self.assertEqual(os.listdir(PATH), ["cursor"])

    def test_what_is_in_flight_when_it_is_flushed_is_not_sent_again_once_acknowledged(self):
        box = make()
        fill(box, 0, 5)
        number, count, _ = box.take(2000)
        fill(box, 5, 5)
        box.flush()
        box.ack(number + count)
        self.assertEqual(all_of(drain(box)), [5, 6, 7, 8, 9])

    def test_age_counts_from_the_oldest_record_in_ram(self):
        box = make()
        self.assertEqual(box.age(), -1)
        fill(box, 0, 1)
        self.assertGreaterEqual(box.age(), 0)
        box.flush()
        self.assertEqual(box.age(), -1)


class Restart(Case):
    def test_flushed_records_are_there_after_a_restart(self):
        box = make()
        fill(box, 0, 333)
        box.flush()
        again = make()
        self.assertEqual(again.records, 333)
        self.assertEqual(all_of(drain(again)), list(range(333)))

    def test_acknowledged_records_are_not(self):
        box = make()
        fill(box, 0, 333)
        box.flush()
        done = []
        for _ in range(5):
            number, count, text = box.take(700)
            done += numbers(text)
            box.ack(number + count)
        rest = all_of(drain(make()))
        self.assertEqual(done + rest, list(range(333)))

    def test_a_number_that_may_have_been_sent_is_never_used_again(self):
        box = make()
        fill(box, 0, 3)
        number, count, _ = box.take(2000)  # sent from RAM, and then the power fails
        again = make()
        fill(again, 0, 1)
        self.assertEqual(again.id, box.id)
        self.assertGreaterEqual(again.take(2000)[0], number + count)

    def test_records_before_and_behind_a_gap_in_the_numbers_are_both_delivered(self):
        box = make()
        fill(box, 0, 50)
        box.flush()
        box.take(100)
        again = make()
        fill(again, 50, 50)
        again.flush()
        self.assertEqual(all_of(drain(again)), list(range(100)))

    def test_every_start_may_go_on_with_the_last_segment(self):
        for n in range(40):
            box = make()
            fill(box, n, 1)
            box.flush()
        self.assertEqual(len(segments()), 1)
        self.assertEqual(all_of(drain(make())), list(range(40)))

    def test_without_its_cursor_it_is_another_numbering(self):
        box = make()
        fill(box, 0, 10)
        box.flush()
        box.take(100)
        os.remove(PATH + "/cursor")
        again = make()
        self.assertNotEqual(again.id, box.id)
        self.assertEqual(all_of(drain(again)), list(range(10)))

    def test_a_cursor_that_is_damaged_counts_as_lost(self):
        box = make()
        fill(box, 0, 10)
        box.flush()
        box.take(100)
        with open(PATH + "/cursor", "rb") as f:
            whole = f.read()
        for n in range(len(whole)):
            with open(PATH + "/cursor", "wb") as f:
                f.write(whole[:n] + bytes([whole[n] ^ 0x10]) + whole[n + 1 :])
            self.assertNotEqual(make().id, box.id)


class Damage(Case):
    def torn(self, keep):
        """The only segment with all but its last bytes; records in it."""
        box = make(buffer=400)
        fill(box, 0, 50)
        box.flush()
        path = PATH + "/" + segments()[0]
        with open(path, "rb") as f:
            data = f.read()
        with open(path, "wb") as f:
            f.write(data[:keep])
        return len(data)

    def test_a_torn_tail_is_cut_off_at_the_last_whole_frame(self):
        size = self.torn(10000)
        for keep in range(size - 1, 0, -37):
            compat.remove_tree("outbox-test")
            self.torn(keep)
            box = make()
            kept = box.records
            fill(box, 100, 5)
            box.flush()
            again = make()
            self.assertEqual(again.damaged * hasattr(os, "truncate"), 0)
            self.assertEqual(all_of(drain(again)), list(range(kept)) + list(range(100, 105)))

    def test_a_tail_of_zeros_or_noise_is_cut_off(self):
        for tail in (b"\0" * 300, b"\xff" * 7, b"\x5a" * 999):
            compat.remove_tree("outbox-test")
            box = make()
            fill(box, 0, 20)
            box.flush()
            with open(PATH + "/" + segments()[0], "ab") as f:
                f.write(tail)
            box = make()
            fill(box, 20, 20)
            box.flush()
            self.assertEqual(all_of(drain(make())), list(range(40)))

    def test_a_damaged_segment_is_skipped_and_counted(self):
        box = make(max_bytes=131072)
        fill(box, 0, 500)
        box.flush()
        names = segments()
        with open(PATH + "/" + names[1], "r+b") as f:
            f.seek(30)
            f.write(b"\0\0\0")
        lost = int(names[2], 16) - int(names[1], 16)
        again = make(max_bytes=131072)
        found = all_of(drain(again))
        self.assertEqual((again.damaged, len(found)), (1, 500 - lost))
        self.assertEqual(found, sorted(found))

    def test_damage_that_shows_when_it_is_read_is_counted(self):
        box = make(max_bytes=131072)
        fill(box, 0, 500)
        box.flush()
        with open(PATH + "/" + segments()[0], "r+b") as f:
            f.seek(30)
            f.write(b"\0\0\0")
        found = all_of(drain(box))
        self.assertEqual(found, list(range(found[0], 500)))
        self.assertEqual((box.damaged, box.dropped), (1, found[0]))

    def test_an_append_that_seemed_to_fail_makes_no_doubles(self):
        def failing(f):
            f.flush()
            raise OSError(5)

        box = make()
        fill(box, 0, 10)
        box.flush()
        fill(box, 10, 10)
        real, sink = outbox.sync_file, log._sink
        outbox.sync_file, log._sink = failing, lambda line: None
        try:
            self.assertFalse(box.flush())
        finally:
            outbox.sync_file, log._sink = real, sink
        fill(box, 20, 10)
        self.assertTrue(box.flush())
        self.assertEqual(make().records, 30)
        number, count, text = box.take(10)
        self.assertEqual(numbers(text), list(range(count)))
        box.ack(count)
        again = make()
        self.assertEqual(again.records, 30 - count)
        self.assertEqual(all_of(drain(again)), list(range(count, 30)))


class Bounds(Case):
    def test_oldest_records_give_way_and_are_counted(self):
        box = make(max_bytes=16384)
        self.assertEqual(fill(box, 0, 2000), 2000)
        self.assertLessEqual(box.stored + box.buffered, 16384)
        found = all_of(drain(box))
        self.assertEqual(found, list(range(2000 - len(found), 2000)))
        self.assertEqual(box.dropped, 2000 - len(found))
        self.assertGreater(len(found), 200)

    def test_newest_records_are_refused_and_counted(self):
        box = make(max_bytes=16384, oldest=False)
        taken = fill(box, 0, 2000)
        self.assertLess(taken, 2000)
        self.assertEqual(box.dropped, 2000 - taken)
        self.assertEqual(all_of(drain(box)), list(range(taken)))
        self.assertEqual(fill(box, 0, 1), 1)

    def test_the_number_of_records_is_bounded_too(self):
        box = make(max_records=1000)
        fill(box, 0, 5000, 12)
        self.assertLessEqual(box.records, 1000)
        found = all_of(drain(box))
        self.assertGreater(len(found), 800)
        self.assertEqual(found, list(range(5000 - len(found), 5000)))

    def test_files_are_never_larger_than_the_bound(self):
        box = make(max_bytes=16384)
        for n in range(30):
            fill(box, n * 50, 50)
            size = sum(os.stat(PATH + "/" + name)[6] for name in segments())
            self.assertLessEqual(size, 16384)
            self.assertEqual(size, box.stored)

    def test_an_acknowledgement_of_what_was_dropped_meanwhile_takes_nothing_else(self):
        box = make(max_bytes=16384)
        fill(box, 0, 300)
        number, count, _ = box.take(500)
        fill(box, 300, 400)
        rest = box.records
        box.ack(number + count)
        self.assertEqual(box.records, rest)
        self.assertEqual(len(all_of(drain(box))), rest)

    def test_what_was_dropped_is_told_after_a_restart(self):
        box = make(max_bytes=16384)
        fill(box, 0, 1000)
        drain(box)
        self.assertGreater(box.dropped, 0)
        fill(box, 0, 3000)
        box.take(100)
        self.assertGreaterEqual(make(max_bytes=16384).dropped, 500)


class Unwritable(Case):
    """A folder that cannot be made stands for a flash that takes nothing."""

    def setUp(self):
        Case.setUp(self)
        compat.make_dirs("outbox-test")
        with open(PATH, "wb") as f:
            f.write(b"a file where the folder should be")

    def make(self):
        return Outbox(PATH + "/deeper", 1 << 20, 100000, 1024)

    def test_records_stay_in_ram_up_to_twice_the_buffer(self):
        box = self.make()
        taken = fill(box, 0, 500)
        self.assertFalse(box.flush())
        self.assertLessEqual(box.buffered, 2048 + 40)
        self.assertEqual(box.dropped, 500 - taken)
        self.assertEqual(all_of(drain(box)), list(range(taken)))

    def test_without_a_cursor_each_life_is_another_numbering(self):
        box = self.make()
        fill(box, 0, 1)
        before = box.id
        box.take(100)
        self.assertNotEqual(box.id, before)

    def test_it_stores_again_when_the_flash_does(self):
        box = self.make()
        taken = fill(box, 0, 60)
        os.remove(PATH)
        self.assertTrue(box.flush())
        again = self.make()
        self.assertEqual(all_of(drain(again)), list(range(taken)))
