# SPDX-License-Identifier: Apache-2.0
"""Trial, confirmation, rollback; and the start of the application that decides about them."""

import asyncio
import sys
import unittest

from edgeagent import compat, log
from edgeagent.errors import UpdateError
from edgeagent.ota import guard, launch, safety, trial
from edgeagent.ota.slots import Slots
from tests.portable.ota_support import fresh, without_room

ARTIFACT = "11" * 32


class Case(unittest.TestCase):
    def setUp(self):
        self.root = fresh("trial")
        self.slots = Slots(self.root)
        self.path = list(sys.path)
        log.configure(100)

    def tearDown(self):
        sys.path[:] = self.path
        sys.modules.pop("app", None)
        compat.remove_tree(self.root)
        log.configure(log.INFO)

    def write(self, slot, source):
        compat.make_dirs(self.root + "/" + slot)
        with open(self.root + "/" + slot + "/app.py", "w") as f:
            f.write(source)

    def update(self, source="VERSION = 2", security=0, job="job/1"):
        """Slot a runs, slot b is on trial."""
        self.write("a", "VERSION = 1")
        self.slots.prepare(ARTIFACT)
        self.write("b", source)
        self.slots.complete(ARTIFACT, "2.0.0", security)
        self.slots.activate("2.0.0", job, 60, "1.0.0")

    def status(self):
        return trial.status(self.root)


class Booting(Case):
    def test_trial_boots_the_new_slot_and_is_counted(self):
        self.update()
        self.assertEqual(trial.boot(self.root), self.root + "/b")
        self.assertEqual(self.status()["boots"], 1)

    def test_fourth_boot_of_a_trial_goes_back_and_says_how_the_others_ended(self):
        self.update()
        for cause in ("soft", "power-on", "watchdog"):
            self.assertEqual(trial.boot(self.root, cause), self.root + "/b")
        self.assertEqual(trial.boot(self.root, "power-on"), self.root + "/a")
        status = self.status()
        self.assertEqual((status["state"], status["active"]), ("rolled_back", "a"))
        self.assertEqual(status["reason"], "interrupted: power-on, watchdog, power-on")

    def test_rolled_back_and_confirmed_versions_boot_without_a_write(self):
        for end in (lambda: trial.failed(self.root, "x"), lambda: trial.confirm(self.root)):
            compat.remove_tree(self.root)
            compat.make_dirs(self.root)
            self.update()
            trial.boot(self.root)
            end()
            before = trial.status(self.root)["n"]
            for _ in range(5):
                trial.boot(self.root)
            self.assertEqual(trial.status(self.root)["n"], before)

    def test_boot_that_cannot_be_counted_runs_the_old_version(self):
        self.update()
        self.assertEqual(without_room(lambda: trial.boot(self.root)), self.root + "/a")
        self.assertEqual(trial.Running.slot, "a")
        self.assertEqual(self.status()["state"], "trial")

    def test_trial_of_an_empty_slot_goes_back(self):
        self.update()
        compat.remove_tree(self.root + "/b")
        self.assertEqual(trial.boot(self.root), self.root + "/a")
        self.assertEqual(self.status()["state"], "rolled_back")

    def test_first_application_that_fails_leaves_no_slot_to_run(self):
        self.slots.prepare(ARTIFACT)
        self.write("a", "")
        self.slots.complete(ARTIFACT, "1.0.0", 0)
        self.slots.activate("1.0.0", "job/1", 60)
        trial.boot(self.root)
        trial.failed(self.root, "broken")
        self.assertIsNone(trial.boot(self.root))


class Ending(Case):
    def test_confirmed_version_stays_and_keeps_its_job(self):
        self.update()
        trial.boot(self.root)
        self.assertTrue(trial.confirm(self.root))
        status = self.status()
        self.assertEqual((status["state"], status["active"], status["job"]), ("confirmed", "b", "job/1"))

    def test_confirming_twice_is_one_write(self):
        self.update()
        trial.confirm(self.root)
        before = trial.status(self.root)["n"]
        self.assertTrue(trial.confirm(self.root))
        self.assertEqual(trial.status(self.root)["n"], before)

    def test_nothing_to_confirm(self):
        self.assertFalse(trial.confirm(self.root))
        self.update()
        trial.failed(self.root, "x")
        self.assertFalse(trial.confirm(self.root))

    def test_failure_goes_back_and_keeps_the_reason(self):
        self.update()
        trial.boot(self.root)
        self.assertTrue(trial.failed(self.root, "ImportError: no module named 'x'"))
        status = self.status()
        self.assertEqual((status["state"], status["active"]), ("rolled_back", "a"))
        self.assertEqual((status["version"], status["previous_version"]), ("2.0.0", "1.0.0"))
        self.assertEqual(status["reason"], "ImportError: no module named 'x'")
        self.assertEqual(trial.boot(self.root), self.root + "/a")

    def test_failure_after_the_trial_changes_nothing(self):
        self.update()
        trial.confirm(self.root)
        self.assertFalse(trial.failed(self.root, "late"))
        self.assertEqual(self.status()["state"], "confirmed")

    def test_security_floor_rises_with_a_confirmed_version_and_never_falls(self):
        self.update(security=7)
        self.assertEqual(self.status()["floor"], 0)
        trial.confirm(self.root)
        self.assertEqual(self.status()["floor"], 7)
        self.slots.prepare("22" * 32)
        self.write("a", "")
        self.slots.complete("22" * 32, "3.0.0", 2)
        self.slots.activate("3.0.0", "job/2", 60)
        trial.confirm(self.root)
        self.assertEqual(self.status()["floor"], 7)

    def test_rolled_back_version_does_not_raise_the_floor(self):
        self.update(security=7)
        trial.failed(self.root, "x")
        self.assertEqual(self.status()["floor"], 0)


class Launching(Case):
    def run_app(self, cause=""):
        self.bare = 0

        def bare():
            self.bare += 1

        sys.modules.pop("app", None)
        return launch.run(self.root, "app", bare, cause)

    def test_application_of_the_active_slot_runs(self):
        self.write("a", "import sys\nran = []\ndef main():\n    ran.append(1)\n")
        self.assertEqual(self.run_app(), "")
        self.assertEqual((sys.modules["app"].ran, self.bare), ([1], 0))

    def test_module_without_main_is_enough(self):
        self.write("a", "VALUE = 5")
        self.assertEqual(self.run_app(), "")
        self.assertEqual(sys.modules["app"].VALUE, 5)

    def test_without_an_application_the_bare_agent_runs(self):
        self.assertEqual(self.run_app(), "")
        self.assertEqual(self.bare, 1)

    def test_exception_in_a_trial_goes_back_with_type_message_and_place(self):
        self.update("\ndef main():\n    raise ValueError('boom')\n")
        self.assertEqual(self.run_app(), "ValueError: boom (app.py:3)")
        self.assertEqual(self.status()["reason"], "ValueError: boom (app.py:3)")

    def test_import_that_fails_in_a_trial_goes_back(self):
        self.update("import fuel_injection_that_is_missing\n")
        self.run_app()
        self.assertIn("fuel_injection_that_is_missing", self.status()["reason"])

    def test_syntax_and_memory_errors_in_a_trial_go_back(self):
        for source in ("def (:\n", "raise MemoryError('no room')\n"):
            compat.remove_tree(self.root)
            compat.make_dirs(self.root)
            trial.Running.slot = None
            self.update(source)
            self.assertNotEqual(self.run_app(), "")
            self.assertEqual(self.status()["state"], "rolled_back")

    def test_trial_without_its_module_goes_back(self):
        self.update()
        compat.remove_tree(self.root + "/b/app.py")
        with open(self.root + "/b/other.txt", "w") as f:
            f.write("x")
        self.run_app()
        self.assertEqual((self.status()["state"], self.bare), ("rolled_back", 0))

    def test_reset_passes_and_is_no_failure(self):
        self.update("raise SystemExit(75)\n")
        self.assertRaises(SystemExit, self.run_app)
        self.assertEqual(self.status()["state"], "trial")

    def test_ctrl_c_stops_a_confirmed_version_and_fails_a_trial(self):
        self.write("a", "raise KeyboardInterrupt\n")
        self.assertRaises(KeyboardInterrupt, self.run_app)
        self.update("raise KeyboardInterrupt\n")
        self.assertIn("KeyboardInterrupt", self.run_app())
        self.assertEqual(self.status()["state"], "rolled_back")

    def test_crash_of_a_confirmed_version_is_kept_for_diagnostics(self):
        self.write("a", "1 / 0\n")
        self.run_app()
        crash = safety.last_crash(self.root)
        self.assertEqual(crash["count"], 1)
        self.assertIn("ZeroDivisionError", crash["reason"])

    def test_restarts_of_a_crashing_version_get_slower(self):
        self.assertEqual(launch.backoff(self.root), 0)
        self.write("a", "1 / 0\n")
        waits = []
        for _ in range(safety.MAX_CRASHES):
            self.run_app()
            waits.append(launch.backoff(self.root))
        self.assertEqual(waits, [2, 4, 8])

    def test_version_that_keeps_crashing_makes_room_for_the_bare_agent(self):
        self.write("a", "1 / 0\n")
        for _ in range(safety.MAX_CRASHES):
            self.assertNotEqual(self.run_app(), "")
        self.assertEqual((self.run_app(), self.bare), ("", 1))
        # Once: the next boot gives the application its chance again.
        self.assertNotEqual(self.run_app(), "")

    def test_restarts_by_the_watchdog_are_crashes(self):
        self.write("a", "VALUE = 1")
        for _ in range(safety.MAX_CRASHES - 1):
            self.run_app("WDT_RESET")
        self.assertEqual(self.bare, 0)
        self.run_app("WDT_RESET")
        self.assertEqual(self.bare, 1)

    def test_a_crash_counts_once_where_every_reset_is_the_watchdogs(self):
        self.write("a", "1 / 0\n")
        for count in range(1, safety.MAX_CRASHES):
            self.run_app("WDT_RESET" if count > 1 else "")
            self.assertEqual(safety.last_crash(self.root)["count"], count)

    def test_a_minute_of_connection_ends_a_row(self):
        class Connected:
            slots_dir = self.root
            client = None

            def __init__(self):
                self.port = self
                self.connected = self

            def is_set(self):
                return True

        safety.failed(self.root, "x")
        saved = guard.asyncio.sleep
        slept = []

        async def sleep(seconds):
            slept.append(seconds)

        guard.asyncio.sleep = sleep
        try:
            asyncio.run(guard.watch(Connected()))
        finally:
            guard.asyncio.sleep = saved
        self.assertEqual((len(slept), safety.last_crash(self.root)["count"]), (60, 0))
        self.assertEqual(safety.last_crash(self.root)["reason"], "x")

    def test_configuration_comes_back_once_with_the_version_before(self):
        path = self.root + "/own.json"
        compat.write_atomic(path, b"good")
        self.update("VALUE = 1")
        safety.keep(self.root, path, trial.status(self.root)["job"])
        compat.write_atomic(path, b"rubbish")
        safety.choose(self.root, "app", "")
        self.assertEqual(compat.read_file(path, 99), b"rubbish")  # it is its own as long as it is on trial
        trial.failed(self.root, "broken")
        safety.choose(self.root, "app", "")
        self.assertEqual(compat.read_file(path, 99), b"good")
        compat.write_atomic(path, b"newer")
        safety.choose(self.root, "app", "")
        self.assertEqual(compat.read_file(path, 99), b"newer")

    def test_a_copy_of_another_execution_is_not_put_back(self):
        path = self.root + "/own.json"
        compat.write_atomic(path, b"old")
        self.update("VALUE = 1")
        safety.keep(self.root, path, "another/1")
        compat.write_atomic(path, b"new")
        trial.failed(self.root, "broken")
        safety.choose(self.root, "app", "")
        self.assertEqual(compat.read_file(path, 99), b"new")

    def test_a_trial_and_the_bare_agent_have_a_limit(self):
        limits = []

        def limit(seconds, over):
            limits.append((seconds, over()))

        self.update("VALUE = 1")
        launch.run(self.root, "app", lambda: None, "", limit)
        self.assertEqual(limits, [(120, True)])
        self.assertIn("did not end", trial.status(self.root)["reason"])
        launch.run(self.root, "app", lambda: None, "", limit)
        self.assertEqual(len(limits), 1)  # none for a version that is confirmed
        for _ in range(safety.MAX_CRASHES):
            safety.failed(self.root, "x")
        launch.run(self.root, "app", lambda: None, "", limit)
        self.assertEqual(limits[1:], [(safety.BARE_S, True)])

    def test_a_confirmed_version_is_not_touched_by_the_limit_of_its_trial(self):
        self.update("VALUE = 1")
        trial.boot(self.root)
        trial.confirm(self.root)
        self.assertEqual(safety.late(self.root), False)
        self.assertEqual(trial.status(self.root)["state"], "confirmed")

    def test_crash_after_a_long_run_starts_a_new_row(self):
        safety.failed(self.root, "x")
        safety.failed(self.root, "x")
        safety.failed(self.root, "x", True)
        self.assertEqual(safety.last_crash(self.root)["count"], 1)


class Guarding(Case):
    class Agent:
        def __init__(self, root):
            self.port = self
            self.slots_dir = root
            self.client = None
            self.resets = 0

        def reset(self):
            self.resets += 1

        async def healthy(self):
            return False, "pump is dry"

    def watch(self):
        agent = self.Agent(self.root)
        asyncio.run(guard.watch(agent))
        return agent.resets

    def expire(self):
        document = trial.status(self.root)
        document["deadline_s"] = 0
        trial.save(self.root, document)

    def test_nothing_to_guard(self):
        self.assertEqual(self.watch(), 0)
        self.update()
        self.assertEqual(self.watch(), 0)  # activated, not booted: this is still the old version

    def test_deadline_goes_back_with_the_facts_and_restarts(self):
        self.update()
        trial.boot(self.root)
        self.expire()
        self.assertEqual(self.watch(), 1)
        reason = self.status()["reason"]
        self.assertIn("no connection", reason)
        self.assertIn("pump is dry", reason)

    def test_confirmation_ends_the_watch(self):
        self.update()
        trial.boot(self.root)

        async def scenario():
            agent = self.Agent(self.root)
            task = asyncio.create_task(guard.watch(agent))
            await asyncio.sleep(0)
            trial.confirm(self.root)
            await task
            return agent.resets

        self.assertEqual(asyncio.run(scenario()), 0)


class Refusals(Case):
    def test_update_error_carries_its_code_first(self):
        error = UpdateError("busy", "why")
        self.assertEqual((error.code, str(error)), ("busy", "busy: why"))


if __name__ == "__main__":
    unittest.main()
