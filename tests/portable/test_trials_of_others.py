# SPDX-License-Identifier: Apache-2.0
"""Trials of the agent and of the firmware: the application and the configuration during them, and how they end."""

import asyncio
import sys
import unittest

from edgeagent import compat, log
from edgeagent.errors import JobFailed, UpdateError
from edgeagent.ota import generations, guard, handover, kinds, launch, safety, trial
from hil.esp32_flash import Chip
from tests.portable import test_partition
from tests.portable.ota_support import fresh, without_room
from tests.portable.ota_world import Agent, Job, Reset, Service


class Case(unittest.TestCase):
    """A board whose application, in slot a, is fine."""

    def setUp(self):
        log.configure(100)
        self.root = fresh("others")
        self.agents = self.root + "/agent"
        compat.make_dirs(self.root + "/a")
        compat.make_dirs(self.agents)
        compat.write_atomic(self.root + "/a/oneapp.py", b"VALUE = 1\n")
        self.agent = Agent(Service({}), self.root)
        self.slots = generations.Generations(self.agents)
        self.slots.running = lambda: self.slot
        self.slot = ""  # that of the agent that runs; "": the factory's
        self.sys_path = list(sys.path)

    def tearDown(self):
        del sys.path[:]
        sys.path.extend(self.sys_path)
        compat.remove_tree(self.root)
        log.configure(log.INFO)
        trial.Running.slot = None

    def fill(self, version):
        path = self.slots.prepare(version * 64)
        compat.write_atomic(path + "/agent", version.encode())
        self.slots.complete(version * 64, version, 0)
        return path[-1]

    def update(self, version, booted=True):
        """Put an agent on trial; booted: as stage 0 does it."""
        slot = self.fill(version)
        self.slots.activate(version, "job/" + version, 60)
        if booted:
            self.slot = slot
            self.change(boots=1)

    def change(self, **members):
        document = self.status()
        document.update(members)
        trial.save(self.agents, document)

    def confirmed(self, *versions):
        for version in versions:
            self.update(version)
            trial.confirm(self.agents)

    def status(self):
        return trial.status(self.agents)

    def run_app(self):
        """Boot and run; what was given to `limit`, as (seconds, what its function says after them)."""
        limits = []

        def limited(seconds, over):
            limits.append((seconds, over()))

        sys.modules.pop("oneapp", None)
        launch.run(self.root, "oneapp", None, "", limited)
        return limits


class Ends(Case):
    def test_trial_of_an_agent_has_a_limit_whatever_the_application_does(self):
        self.update("1")
        self.assertEqual(self.run_app(), [(120, True)])
        self.assertEqual((self.status()["state"], self.status()["active"]), ("rolled_back", None))
        self.assertIn("did not end", self.status()["reason"])
        self.assertEqual(self.run_app(), [])

    def test_limit_of_a_trial_that_was_confirmed_does_nothing(self):
        self.update("1")
        limits = []
        launch.run(self.root, "oneapp", None, "", lambda seconds, over: limits.append(over))
        trial.confirm(self.agents)
        self.assertEqual((limits[0](), self.status()["state"]), (False, "confirmed"))

    def test_the_bare_agent_of_a_board_without_an_application_is_not_restarted_for_one(self):
        compat.remove_tree(self.root + "/a")
        self.update("1")
        limits = []
        launch.run(self.root, "oneapp", lambda: None, "", lambda seconds, over: limits.append(over))
        trial.confirm(self.agents)
        self.assertEqual(limits[0](), False)

    def test_state_of_another_form_lets_the_application_run(self):
        for state in ({"n": 7, "state": "trial", "active": "z"}, {"n": 7, "state": "rolled_back"}, {"n": 7}, {"x": 1}):
            trial.write_sealed(self.agents + "/state.json", state)
            self.assertEqual(safety.choose(self.root, "oneapp", "")[0], self.root + "/a", state)

    def test_crash_without_an_application_slot_waits_no_longer_than_others(self):
        waits = []
        for _ in range(20):
            safety.failed(self.root, "no access point")
            waits.append(safety.backoff(self.root))
        self.assertEqual(waits, [2, 4] + [8] * 18)

    def test_job_of_an_older_journal_ends_its_trial(self):
        self.update("1")
        self.change(job=kinds.name("j", 1, None))
        with self.assertRaises(Reset):
            safety.cancel(self.agent, {"jobId": "j", "executionNumber": 1, "status": "IN_PROGRESS"})
        self.assertEqual(self.status()["state"], "rolled_back")

    def test_trial_that_was_never_booted_is_over_when_the_journal_cannot_be_written(self):
        class Full(Job):
            def checkpoint(self, **data):
                raise JobFailed("journal: OSError: 28")

        self.update("1", booted=False)
        asyncio.run(handover.prove(Full(self.agent, {}), self.slots, self.status()))
        self.assertEqual((self.status()["state"], self.status()["active"]), ("rolled_back", None))


class Configuration(Case):
    def setUp(self):
        Case.setUp(self)
        self.path = self.root + "/own.json"
        compat.write_atomic(self.path, b"good")

    def text(self):
        return compat.read_file(self.path, 99)

    def test_comes_back_with_the_agent_before(self):
        self.update("1")
        safety.keep(self.root, self.path, "job/1")
        compat.write_atomic(self.path, b"of the trial")
        self.run_app()  # which its limit ends
        self.assertEqual(self.text(), b"of the trial")
        self.run_app()
        self.assertEqual(self.text(), b"good")

    def test_of_a_confirmed_agent_does_not_come_back_when_that_no_longer_starts(self):
        self.confirmed("1")
        safety.keep(self.root, self.path, "job/1")
        compat.write_atomic(self.path, b"newer")
        self.slot = ""
        self.slots.prepare("2" * 64)
        self.assertEqual(self.status()["state"], "rolled_back")
        self.run_app()
        self.assertEqual(self.text(), b"newer")


class Kept(Case):
    def kept(self):
        return asyncio.run(self.slots.kept())

    def test_agent_before_is_kept(self):
        self.confirmed("1", "2")
        self.assertEqual(self.kept(), ("1", 0))

    def test_agent_that_never_ran_is_not_however_much_stage_0_has_counted(self):
        self.confirmed("1", "2")
        self.fill("3")
        self.change(fails=1)
        with self.assertRaises(UpdateError) as caught:
            self.kept()
        self.assertEqual(caught.exception.code, "slot")

    def test_failures_of_the_agent_that_is_left_are_not_held_against_the_one_before(self):
        self.confirmed("1", "2")
        self.change(fails=3)  # which does not start any more
        self.slot = "a"
        self.kept()
        self.slots.activate("1", "back", 60)
        self.assertEqual(self.status()["fails"], 0)


class Failures(Case):
    def test_agent_that_starts_takes_back_its_own_only(self):
        self.agent.connected = None
        for fails, left in ((0, 0), (1, 0), (2, 0), (3, 3), (4, 3), (5, 3), (6, 6), ("x", "x"), (None, None)):
            self.change(fails=fails)
            asyncio.run(guard.watch(self.agent))
            self.assertEqual(self.status()["fails"], left)


class Esp32:
    """As `sys`."""

    platform = "esp32"


class Firmware(test_partition.Case):
    """The application crashes under the new firmware, or never starts the agent."""

    def setUp(self):
        test_partition.Case.setUp(self)
        log.configure(100)
        self.saved = kinds.sys
        self.sys_path = list(sys.path)
        kinds.sys = trial.sys = Esp32
        self.chip()
        asyncio.run(self.filled(test_partition.NEW, "a1").activate("v2", "job/1", 60))
        compat.make_dirs(self.root + "/a")

    root = test_partition.ROOT

    def tearDown(self):
        del sys.path[:]
        sys.path.extend(self.sys_path)
        kinds.sys = trial.sys = self.saved
        trial.Running.slot = None
        test_partition.Case.tearDown(self)
        log.configure(log.INFO)

    def run_app(self, source, limit=None):
        compat.write_atomic(self.root + "/a/oneapp.py", source)
        sys.modules.pop("oneapp", None)
        return launch.run(self.root, "oneapp", None, "HARD_RESET", limit)

    def status(self):
        return trial.status(self.root + "/firmware")

    def test_crash_ends_the_trial_at_once_and_says_why(self):
        self.assertEqual(self.restart().running[0], "ota_1")
        self.run_app(b"1 / 0\n")
        self.assertEqual(self.status()["state"], "rolled_back")
        self.assertIn("ZeroDivisionError", self.status()["reason"])
        self.assertEqual(safety.last_crash(self.root)["count"], 0)
        self.assertEqual(self.restart().running[0], "ota_0")

    def test_crash_ends_a_trial_that_no_bootloader_watches(self):
        for _ in range(2):
            self.one = sys.modules["esp32"] = Chip(self.flash)
            self.one.rollback = False
            self.one.power_on()
            self.assertEqual(self.one.running[0], "ota_1")
        self.run_app(b"1 / 0\n")
        self.assertEqual(self.restart().running[0], "ota_0")

    def test_application_that_never_starts_the_agent_has_a_limit(self):
        limits = []
        self.restart()
        self.run_app(b"VALUE = 1\n", lambda seconds, over: limits.append((seconds, over())))
        self.assertEqual(limits, [(120, True)])
        self.assertEqual(self.restart().running[0], "ota_0")

    def test_trial_that_is_over_restarts_nothing_when_that_cannot_be_stored(self):
        document = self.status()
        document["deadline_s"] = 0
        trial.save(self.root + "/firmware", document)
        for _ in range(2):  # the bootloader goes back at the second
            self.restart()
        self.assertEqual(self.one.running[0], "ota_0")
        agent = Agent(Service({}), self.root)
        without_room(lambda: asyncio.run(guard.watch(agent)))
        self.assertEqual(self.status()["state"], "trial")
        with self.assertRaises(Reset):
            asyncio.run(guard.watch(agent))
        self.assertEqual(self.status()["state"], "rolled_back")

    def test_firmware_on_trial_is_left_even_when_that_cannot_be_stored(self):
        self.restart()
        self.assertEqual(without_room(lambda: trial.failed(self.root + "/firmware", "dry")), True)
        self.assertEqual(self.restart().running[0], "ota_0")


if __name__ == "__main__":
    unittest.main()
