# SPDX-License-Identifier: Apache-2.0
"""Updates among things that go wrong beside them: decayed files, odd applications, job ids that are used again."""

import asyncio
import json
import unittest

from edgeagent import compat, log
from edgeagent.agent import Agent as RealAgent
from edgeagent.jobs.journal import Journal
from edgeagent.ota import guard, kinds, launch, safety, trial
from tests.portable.job_service import FOLDER, Device, live, wipe
from tests.portable.job_service import Service as Jobs
from tests.portable.ota_support import Artifact, fresh
from tests.portable.ota_world import Agent, Reset
from tests.portable.test_ota_handler import Case

CONFIG = json.dumps({"endpoint": "fleet.example", "thing_name": "t"}).encode()


UNSPEAKABLE = b"""class E(Exception):
    def __str__(self):
        return self.args[5]


raise E("x")
"""


class Unspeakable(Exception):
    def __str__(self):
        return self.args[5]


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)


def on_trial(root, job="job/1/1", **changes):
    """b runs on trial, a was before."""
    for slot in "ab":
        compat.make_dirs(root + "/" + slot)
        put(root + "/%s/app.py" % slot, b"x = 1")
    state = trial.status(root)
    state.update({"active": "b", "before": "a", "state": "trial", "version": "2", "job": job, "boots": 1})
    state.update({"causes": [], "deadline_s": 600, "security_version": 0})
    state.update(changes)
    trial.save(root, state)


class Files(unittest.TestCase):
    def setUp(self):
        log.configure(100)
        self.root = fresh("faults")

    def tearDown(self):
        compat.remove_tree(self.root)
        log.configure(log.INFO)

    def test_a_decayed_copy_of_the_configuration_is_not_put_back(self):
        path = self.root + "/conf.json"
        put(path, CONFIG)
        safety.keep(self.root, path, "job/1/1")
        put(path, b"what the version on trial made of it")
        kept = compat.read_file(self.root + safety.KEPT, 9000)
        for place in range(len(kept)):
            for mask in (1, 0x80):
                raw = bytearray(kept)
                raw[place] ^= mask
                put(self.root + safety.KEPT, raw)
                safety.put_back(self.root, "job/1/1")
                self.assertEqual(compat.read_file(path, 9000), b"what the version on trial made of it")
        put(self.root + safety.KEPT, kept)
        safety.put_back(self.root, "job/1/1")
        self.assertEqual(compat.read_file(path, 9000), CONFIG)

    def test_a_reason_of_any_characters_leaves_a_state_that_can_be_read(self):
        on_trial(self.root, floor=7)
        trial.failed(self.root, "not well: " + "\U0001f525" * 240)
        state = trial.status(self.root)
        self.assertEqual((state["state"], state["floor"]), ("rolled_back", 7))

    def test_an_application_whose_error_cannot_be_printed_is_rolled_back_like_any_other(self):
        on_trial(self.root)
        put(self.root + "/b/badapp.py", UNSPEAKABLE)
        self.assertIn("E", launch.run(self.root, "badapp", lambda: None))
        self.assertEqual(trial.status(self.root)["state"], "rolled_back")


class Unconfirmed(Case):
    def test_the_deadline_ends_a_trial_whatever_the_health_checks_raise(self):
        def unspeakable():
            raise Unspeakable("x")

        async def cancelled():
            raise asyncio.CancelledError

        self.reset()
        for check in (unspeakable, cancelled):
            on_trial(self.root, deadline_s=0)
            self.agent._checks = [check]
            self.agent.healthy = lambda: RealAgent.healthy(self.agent)
            self.assertRaises(Reset, lambda: asyncio.run(guard.watch(self.agent)))
            self.assertEqual(self.status()["state"], "rolled_back")

    def test_a_version_that_is_never_booted_ends_the_job(self):
        self.reset()
        for _ in range(trial.MAX_BOOTS):
            self.reset(data=self.job.data)
            # Not by launch.run: an application that starts its agent alone.
            self.agent = Agent(self.service, self.root, "1.0.0")
            self.agent.config.trust = self.root + "/trust.json"
            trial.Running.slot = None
        self.assertIn("never booted", self.refused("rolled-back", data=self.job.data))

    def test_an_id_that_is_used_again_is_another_job(self):
        self.reset()
        self.boot("2.0.0")
        self.run_job()
        self.artifact = Artifact([("app.py", b"VERSION = 3")], "3.0.0")
        self.boot("2.0.0")
        self.reset(queued=2)
        self.boot("3.0.0")
        self.assertEqual(self.run_job(queued=2), {"version": "3.0.0", "previous": "2.0.0"})

    def test_a_decayed_note_about_the_delta_changes_no_outcome(self):
        self.reset()
        put(self.root + "/patch.why", b"job/1/1\nnone from aa\xb0bb")
        self.boot("2.0.0")
        self.assertEqual(self.run_job(), {"version": "2.0.0", "previous": "1.0.0"})

    def test_what_was_signed_says_which_version_runs_not_the_bare_agent_in_its_place(self):
        self.reset()
        self.boot("2.0.0")
        self.run_job()
        self.artifact = Artifact([("app.py", b"VERSION = 1")], "1.5.0")
        self.boot("0.0.0")
        self.refused("downgrade", execution=2)


class EndedMeanwhile(unittest.TestCase):
    def setUp(self):
        log.configure(100)
        wipe()

    def tearDown(self):
        wipe()
        log.configure(log.INFO)

    def test_a_trial_whose_job_was_cancelled_during_the_restart_is_over_at_once(self):
        root = FOLDER + "/slots"
        on_trial(root, kinds.name("u", 1, None))
        jobs = Jobs()
        jobs.add("u", {"operation": "ota"})
        record = {"jobId": "u", "executionNumber": 1, "queuedAt": None, "operation": "ota", "bootId": "boot-1"}
        record.update({"status": "IN_PROGRESS", "data": {}})
        Journal(FOLDER + "/job.json").write(record)
        jobs.cancel("u")

        async def scenario(device):
            await device.idle()

        self.assertTrue(live(Device(jobs, 2), scenario), "no restart")
        state = trial.status(root)
        self.assertEqual((state["state"], state["reason"]), ("rolled_back", "the service ended the job"))
