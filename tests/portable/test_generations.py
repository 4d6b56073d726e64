# SPDX-License-Identifier: Apache-2.0
"""What an update of the agent overwrites, and what it keeps as the way back."""

import os
import unittest

from edgeagent import compat
from edgeagent.errors import UpdateError
from edgeagent.ota import generations, kinds, trial
from tests.portable.ota_support import fresh


class Case(unittest.TestCase):
    def setUp(self):
        self.root = fresh("generations")
        self.slots = generations.Generations(self.root)
        self.slots.running = lambda: self.slot or ""
        self.slot = None  # that of the agent that runs; None: the factory's

    def tearDown(self):
        compat.remove_tree(self.root)

    def fill(self, version):
        """Install an agent; the path of its slot."""
        path = self.slots.prepare(version * 64)
        compat.write_atomic(path + "/agent", version.encode())
        self.slots.complete(version * 64, version, 0)
        return path

    def update(self, version):
        """Install an agent, run and confirm it."""
        path = self.fill(version)
        self.slots.activate(version, "job/" + version, 60)
        self.slot = path[-1]
        trial.confirm(self.root)

    def status(self):
        return trial.status(self.root)


class Filling(Case):
    def test_first_agent_goes_back_to_the_factory(self):
        self.fill("1")
        self.slots.activate("1", "job/1", 60)
        self.assertEqual((self.status()["active"], self.status()["before"]), ("a", None))
        trial.failed(self.root, "bad")
        self.assertEqual(self.status()["active"], None)

    def test_second_agent_goes_back_to_the_first(self):
        self.update("1")
        self.fill("2")
        self.slots.activate("2", "job/2", 60)
        self.assertEqual((self.status()["active"], self.status()["before"]), ("b", "a"))
        trial.failed(self.root, "bad")
        self.assertEqual(self.status()["active"], "a")

    def test_slot_that_is_being_filled_is_no_way_back(self):
        self.update("1")
        self.update("2")
        self.assertEqual(self.status()["before"], "a")
        self.slots.prepare("3" * 64)
        self.assertEqual((self.status()["active"], self.status()["before"]), ("b", None))

    def test_agent_that_runs_is_not_overwritten_when_another_one_should_run(self):
        self.update("1")
        self.update("2")
        self.slot = "a"  # b does not start
        self.assertEqual(self.slots.prepare("3" * 64), self.root + "/b")
        self.assertEqual(self.status()["active"], "a")
        self.assertEqual(self.status()["state"], "rolled_back")
        self.assertEqual(os.listdir(self.root + "/a"), ["agent"])

    def test_nothing_unproven_is_a_way_back_for_an_agent_installed_by_that_of_the_factory(self):
        self.update("1")
        self.fill("2")
        self.slots.activate("2", "job/2", 60)
        trial.failed(self.root, "bad")
        self.slot = None  # nor does a start any more
        self.fill("3")
        self.slots.activate("3", "job/3", 60)
        trial.failed(self.root, "bad as well")
        self.assertEqual(self.status()["active"], None)

    def test_failures_of_an_agent_are_not_held_against_the_next(self):
        self.update("1")
        document = self.status()
        document["fails"] = 3
        trial.save(self.root, document)
        self.slot = None
        self.slots.prepare("2" * 64)
        self.assertEqual(self.status()["fails"], 0)

    def test_no_update_during_a_trial(self):
        self.fill("1")
        self.slots.activate("1", "job/1", 60)
        with self.assertRaises(UpdateError) as caught:
            self.slots.prepare("2" * 64)
        self.assertEqual(caught.exception.code, "busy")

    def test_only_the_agent_on_trial_can_confirm_itself(self):
        self.fill("1")
        self.slots.activate("1", "job/1", 60)
        self.assertFalse(self.slots.runs(self.status()))
        self.slot = "a"
        self.assertTrue(self.slots.runs(self.status()))

    def test_prepare_that_was_cut_short_goes_on(self):
        self.update("1")
        self.update("2")
        self.slot = None
        saved = trial.save
        trial.save = None
        self.assertRaises(TypeError, lambda: self.slots.prepare("3" * 64))
        trial.save = saved
        self.fill("3")
        self.slots.activate("3", "job/3", 60)
        trial.failed(self.root, "bad")
        self.assertEqual(self.status()["active"], None)


class Device:
    slots_dir = "/slots"


class Kinds(unittest.TestCase):
    def test_boards_update_their_agent_and_other_machines_say_who_does(self):
        if compat.MICROPYTHON:
            self.assertEqual(kinds.target(Device(), "agent").root, "/slots/agent")
        else:
            with self.assertRaises(UpdateError) as caught:
                kinds.target(Device(), "agent")
            self.assertEqual(str(caught.exception), "type: agent: use pip, RAUC or Greengrass")
