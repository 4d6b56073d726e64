# SPDX-License-Identifier: Apache-2.0
"""The two slots and the record of which one runs."""

import os
import unittest

from edgeagent import compat, space
from edgeagent.ota import trial
from edgeagent.ota.slots import Slots
from tests.portable.ota_support import contents, damage, fill, fresh, refusal, slot_contents

A1 = "11" * 32
A2 = "22" * 32


def put(slot, text):
    fill(slot, {"app.mpy": text, "lib/x.mpy": text})


def put_plain(folder, text):
    compat.make_dirs(folder + "/lib")
    for name in ("app.mpy", "lib/x.mpy"):
        with open(folder + "/" + name, "wb") as f:
            f.write(text)


def complete(slots, artifact, version, security=0):
    put(slots.prepare(artifact), version.encode())
    slots.complete(artifact, version, security)


class Case(unittest.TestCase):
    def setUp(self):
        self.root = fresh("slots")
        self.slots = Slots(self.root)

    def tearDown(self):
        compat.remove_tree(self.root)

    def factory(self, put=put):
        put(self.root + "/a", b"factory")

    def refused(self, code, function, *args):
        refusal(self, code, function, *args)


class Filling(Case):
    def test_a_device_without_application_fills_slot_a(self):
        self.assertIsNone(trial.status(self.root)["active"])
        self.assertEqual(self.slots.prepare(A1), self.root + "/a")

    def test_slots_filled_at_the_factory_need_no_record(self):
        self.factory()
        self.assertEqual(trial.status(self.root)["active"], "a")
        self.assertEqual(self.slots.prepare(A1), self.root + "/b")

    def test_preparing_wipes_what_another_artifact_left(self):
        self.factory()
        put(self.slots.prepare(A1), b"left")
        self.assertEqual(slot_contents(self.slots.prepare(A2)), {})

    def test_preparing_again_keeps_what_the_same_artifact_left(self):
        self.factory()
        put(self.slots.prepare(A1), b"left")
        self.assertEqual(len(slot_contents(self.slots.prepare(A1))), 2)

    def test_wipe_that_was_cut_short_is_done_again(self):
        self.factory()
        put(self.root + "/b", b"stale")
        trial.write_sealed(
            self.root + "/b.json",
            {"complete": False, "artifact": None, "version": "", "security_version": 0, "n": 1},
        )
        self.assertEqual(slot_contents(self.slots.prepare(A1)), {})

    def test_running_slot_is_never_touched(self):
        self.factory()
        before = slot_contents(self.root + "/a")
        complete(self.slots, A1, "2.0.0")
        self.assertEqual(slot_contents(self.root + "/a"), before)

    def test_complete_slot_that_is_prepared_again_is_incomplete_until_it_was_checked(self):
        self.factory()
        complete(self.slots, A1, "2.0.0")
        self.assertEqual(len(slot_contents(self.slots.prepare(A1))), 2)
        self.refused("slot", self.slots.activate, "2.0.0", "job/1", 60)


class Room(Case):
    def test_what_is_free_is_what_users_may_fill(self):
        class Reserved:
            @staticmethod
            def statvfs(path):
                return 1 << 20, 4096, 99, 99, 2, 9

        real, space.os = space.os, Reserved
        try:
            self.assertEqual(self.slots.free(), 8192)
        finally:
            space.os = real


class Activating(Case):
    def test_points_to_the_other_slot_as_a_trial(self):
        self.factory()
        complete(self.slots, A1, "2.0.0", 4)
        self.slots.activate("2.0.0", "job/1", 60, "1.0.0")
        status = trial.status(self.root)
        self.assertEqual((status["state"], status["active"], status["boots"]), ("trial", "b", 0))
        self.assertEqual((status["version"], status["previous_version"]), ("2.0.0", "1.0.0"))
        self.assertEqual((status["job"], status["deadline_s"]), ("job/1", 60))

    def test_incomplete_slot_is_refused(self):
        self.factory()
        put(self.slots.prepare(A1), b"x")
        self.refused("slot", self.slots.activate, "2.0.0", "job/1", 60)
        self.assertEqual(trial.status(self.root)["active"], "a")

    def test_empty_slot_is_refused(self):
        self.factory()
        self.refused("slot", self.slots.activate, "2.0.0", "job/1", 60)

    def test_nothing_is_prepared_or_activated_during_a_trial(self):
        # The other slot is the only way back.
        self.factory()
        complete(self.slots, A1, "2.0.0")
        self.slots.activate("2.0.0", "job/1", 60)
        before = contents(self.root)
        self.refused("busy", self.slots.prepare, A2)
        self.refused("busy", self.slots.activate, "3.0.0", "job/2", 60)
        self.assertEqual(contents(self.root), before)

    def test_one_activation_is_at_most_two_file_writes(self):
        # The transition itself and its insurance copy: flash wear.
        self.factory()
        complete(self.slots, A1, "2.0.0")
        written = []
        real = trial.write_atomic
        trial.write_atomic = lambda path, data: written.append(path) or real(path, data)
        try:
            self.slots.activate("2.0.0", "job/1", 60)
        finally:
            trial.write_atomic = real
        self.assertEqual([path[len(self.root) :] for path in written], ["/state.json", "/state.bak"])


class Damage(Case):
    def confirmed(self):
        self.factory()
        complete(self.slots, A1, "2.0.0", 3)
        self.slots.activate("2.0.0", "job/1", 60)
        trial.boot(self.root)
        trial.confirm(self.root)

    def test_any_flipped_byte_of_either_copy_changes_nothing(self):
        self.confirmed()
        before = trial.status(self.root)
        for name in ("/state.json", "/state.bak"):
            path = self.root + name
            for at in range(os.stat(path)[6]):
                damage(path, at)
                self.assertEqual(trial.status(self.root), before)
                damage(path, at)

    def test_truncated_empty_and_foreign_copies_count_as_absent(self):
        self.confirmed()
        before = trial.status(self.root)
        with open(self.root + "/state.json", "rb") as f:
            good = f.read()
        for bad in (b"", good[:-1], good + b" ", b"{}", b"\x00" * 5000):
            with open(self.root + "/state.json", "wb") as f:
                f.write(bad)
            self.assertEqual(trial.status(self.root), before)

    def test_newer_copy_wins_when_a_cut_fell_between_the_two(self):
        self.confirmed()
        with open(self.root + "/state.bak", "rb") as f:
            old = f.read()
        complete(self.slots, A2, "3.0.0")
        self.slots.activate("3.0.0", "job/2", 60)
        with open(self.root + "/state.bak", "wb") as f:
            f.write(old)
        self.assertEqual(trial.status(self.root)["version"], "3.0.0")

    def test_without_any_state_the_older_complete_slot_runs(self):
        self.confirmed()
        complete(self.slots, A2, "3.0.0")
        for name in ("/state.json", "/state.bak"):
            damage(self.root + name)
        # Slot a was filled last and may be unproven; b is the version that was good before.
        self.assertEqual(trial.boot(self.root), self.root + "/b")

    def test_without_any_state_an_incomplete_slot_does_not_run(self):
        self.confirmed()
        put(self.slots.prepare(A2), b"half")
        for name in ("/state.json", "/state.bak"):
            compat.remove_tree(self.root + name)
        self.assertEqual(trial.boot(self.root), self.root + "/b")

    def test_slot_whose_record_is_damaged_is_not_taken_for_complete(self):
        self.factory()
        complete(self.slots, A1, "2.0.0")
        damage(self.root + "/b.json")
        self.refused("slot", self.slots.activate, "2.0.0", "job/1", 60)

    def test_lost_active_slot_falls_back_to_the_other_complete_one(self):
        self.confirmed()
        compat.remove_tree(self.root + "/b.idx")
        self.assertEqual(trial.boot(self.root), self.root + "/a")

    def test_slot_that_was_filled_on_a_device_without_an_application_does_not_run_before_its_activation(self):
        complete(self.slots, A1, "2.0.0")
        self.assertIsNone(trial.boot(self.root))
        self.slots.activate("2.0.0", "job/1", 60)
        self.assertEqual(trial.boot(self.root), self.root + "/a")

    def test_an_update_that_goes_on_after_the_state_was_lost_fills_the_other_slot(self):
        complete(self.slots, A1, "1.0.0")
        self.slots.activate("1.0.0", "", 0)
        trial.confirm(self.root)
        complete(self.slots, A2, "2.0.0")
        for name in ("/state.json", "/state.bak"):
            os.remove(self.root + name)
        self.assertEqual(trial.boot(self.root), self.root + "/a")
        self.assertEqual(self.slots.prepare(A2), self.root + "/b")
        self.slots.complete(A2, "2.0.0", 0)
        self.slots.activate("2.0.0", "job/1", 60)
        self.assertEqual(trial.boot(self.root), self.root + "/b")

    def test_nothing_at_all(self):
        self.assertIsNone(trial.boot(self.root))
        self.assertIsNone(trial.boot(self.root + "/missing"))
        self.assertEqual(trial.status(self.root)["state"], "none")


if __name__ == "__main__":
    unittest.main()
