# SPDX-License-Identifier: Apache-2.0
"""The job operation "rollback": back to what is kept, on trial, or a reason why not."""

import asyncio
import unittest

from edgeagent.compat import remove_tree
from edgeagent.errors import JobRejected
from edgeagent.jobs import rollback
from edgeagent.ota import trial
from tests.portable.ota_support import Artifact, contents, refusal
from tests.portable.ota_world import Job, Reset
from tests.portable.test_ota_handler import OLD, Case


class Rollback(Case):
    def back(self, execution=1, **members):
        """Run the job; members: of its document."""
        members["operation"] = "rollback"
        self.job = Job(self.agent, members, "back", execution)
        return asyncio.run(self.service.during(rollback.run(self.job)))

    def update(self, version="2.0.0", security_version=1, execution=1):
        """1.0.0 or what runs is replaced by `version`, which is confirmed."""
        self.artifact = Artifact([("app.py", version.encode())], version=version, security_version=security_version)
        self.boot(self.agent.version)
        self.reset(execution=execution)
        self.boot(version)
        self.run_job(execution=execution)

    def restarts(self, **members):
        self.assertRaises(Reset, lambda: self.back(**members))

    def fails(self, code, **members):
        return refusal(self, code, self.back, **members)

    def setUp(self):
        Case.setUp(self)
        self.update(security_version=0)

    def test_goes_back_to_the_version_before_and_proves_it(self):
        self.restarts()
        self.assertEqual(self.status()["state"], "trial")
        self.boot("1.0.0")
        self.assertEqual(trial.Running.slot, "a")
        self.assertEqual(contents(self.root + "/a"), {"app.py": OLD})
        self.assertEqual(self.back(), {"version": "1.0.0", "previous": "2.0.0"})
        self.assertEqual(self.status()["state"], "confirmed")

    def test_the_outcome_is_repeated_when_the_report_was_lost(self):
        self.restarts()
        self.boot("1.0.0")
        done = self.back()
        self.boot("1.0.0")
        self.assertEqual(self.back(), done)

    def test_a_version_that_does_not_prove_itself_makes_room_for_the_one_that_was_left(self):
        self.restarts()
        self.boot("1.0.0")
        trial.failed(self.root, "broken")
        self.boot("2.0.0")
        self.assertEqual(trial.Running.slot, "b")
        self.assertIn("broken", self.fails("rolled-back"))

    def test_an_update_to_the_newer_version_follows(self):
        self.restarts()
        self.boot("1.0.0")
        self.back()
        self.update(execution=2)
        self.assertEqual(self.status()["version"], "2.0.0")

    def test_a_second_one_goes_forth_again(self):
        self.restarts()
        self.boot("1.0.0")
        self.back()
        self.restarts(execution=2)
        self.boot("2.0.0")
        self.assertEqual(self.back(execution=2), {"version": "2.0.0", "previous": "1.0.0"})

    def test_the_version_that_is_kept_may_be_named(self):
        with self.assertRaises(JobRejected) as caught:
            self.back(version="0.9.0")
        self.assertIn("1.0.0 is kept", str(caught.exception))
        self.restarts(version="1.0.0")

    def test_nothing_kept(self):
        remove_tree(self.root + "/a")
        self.fails("slot")
        self.assertEqual(self.status()["state"], "confirmed")

    def test_an_incomplete_slot_is_nothing_kept(self):
        trial.write_sealed(self.root + "/a.json", {"complete": False})
        self.fails("slot")

    def test_what_was_downloaded_since_and_never_ran_is_not_gone_back_to(self):
        self.artifact = Artifact([("app.py", b"new")], version="3.0.0")
        self.boot("2.0.0")
        self.agent.hooks["may_update"] = lambda stage: (stage != "restart", "not now")
        refusal(self, "gate", self.run_job, execution=3, document=dict(self.artifact.job(), wait=0))
        self.assertTrue(trial.info(self.root, "a")["complete"])
        self.fails("slot")

    def test_the_security_floor_holds(self):
        self.update("3.0.0", 2, 2)
        self.fails("security-version")

    def test_what_was_rolled_back_is_not_gone_back_to(self):
        self.artifact = Artifact([("app.py", b"bad")], version="3.0.0")
        self.boot("2.0.0")
        self.reset(execution=3)
        self.boot("3.0.0")
        trial.failed(self.root, "broken")
        self.boot("2.0.0")
        self.assertIn("3.0.0", self.fails("rolled-back"))

    def test_not_during_a_trial(self):
        self.artifact = Artifact([("app.py", b"new")], version="3.0.0")
        self.boot("2.0.0")
        self.reset(execution=3)
        self.boot("3.0.0")
        self.fails("busy")

    def test_kinds_without_slots_are_refused(self):
        for kind in ("firmware", "image", 5):
            self.fails("type", kind=kind)

    def test_it_waits_for_the_application(self):
        self.agent.hooks["may_update"] = lambda stage: (False, stage)
        self.assertIn("restart", self.fails("gate", wait=0))
        self.assertEqual(self.status()["state"], "confirmed")


if __name__ == "__main__":
    unittest.main()
