# SPDX-License-Identifier: Apache-2.0
"""The job operation "ota" from the document to the one true outcome, with resets in between."""

import asyncio
import json
import unittest

from edgeagent import clock, compat, log
from edgeagent.errors import JobFailed, JobRejected
from edgeagent.jobs import ota
from edgeagent.limits import LIMITS
from edgeagent.ota import admit, gate, guard, trial
from edgeagent.ota.transfer import Fetcher
from tests.portable.ota_support import (
    BLOCK,
    Artifact,
    Key,
    damage,
    entries,
    fresh,
    pattern,
    refusal,
    slot_contents,
    trust,
)
from tests.portable.ota_world import Agent, Job, Reset, Service

OLD = b"VERSION = 1"
FILES = [("app.py", b"VERSION = 2"), ("data.bin", pattern(12 * BLOCK))]


class Case(unittest.TestCase):
    def setUp(self):
        self.saved = LIMITS.REQUEST_S, Fetcher.POLL_S
        LIMITS.REQUEST_S = 0.05
        Fetcher.POLL_S = 0.001
        # What is changed here, as the Fetcher is, must not be dropped and loaded anew.
        self.unload = ota.unload
        ota.unload = admit.unload = lambda *_: None
        log.configure(100)
        self.root = fresh("handler")
        compat.make_dirs(self.root + "/a")
        with open(self.root + "/a/app.py", "wb") as f:
            f.write(OLD)
        with open(self.root + "/trust.json", "w") as f:
            json.dump(trust(), f)
        self.artifact = Artifact(FILES)
        self.boot("1.0.0")

    def tearDown(self):
        LIMITS.REQUEST_S, Fetcher.POLL_S = self.saved
        ota.unload = admit.unload = self.unload
        compat.remove_tree(self.root)
        log.configure(log.INFO)
        trial.Running.slot = None

    def boot(self, version, cause="soft"):
        """The device restarts; what it then runs says it is `version`."""
        trial.boot(self.root, cause)
        self.service = Service(self.artifact.parts())
        self.agent = Agent(self.service, self.root, version)
        self.agent.config.trust = self.root + "/trust.json"

    def run_job(self, execution=1, **behaviour):
        """Run the handler until it returns, raises, or resets the device."""
        self.job = Job(self.agent, behaviour.pop("document", self.artifact.job()), "job", execution)
        for name, value in behaviour.items():
            setattr(self.job, name, value)

        async def scenario():
            # As the agent does from its start. A reset leaves through the handler's own task, the first to notice it.
            watch = asyncio.create_task(self.watched(asyncio.current_task()))
            try:
                return await ota.run(self.job)
            except asyncio.CancelledError:
                if self.agent.resets:
                    raise Reset from None
                raise
            finally:
                watch.cancel()

        return asyncio.run(self.service.during(scenario()))

    async def watched(self, handler):
        try:
            await guard.watch(self.agent)
        except Reset:
            self.agent.resets += 1
            handler.cancel()

    def reset(self, **behaviour):
        self.assertRaises(Reset, lambda: self.run_job(**behaviour))

    def refused(self, code, **behaviour):
        return refusal(self, code, self.run_job, **behaviour)

    def status(self):
        return trial.status(self.root)

    def untouched(self):
        """The old version runs at the next boot, too."""
        self.assertNotEqual(self.status()["state"], "trial")
        self.assertEqual(trial.boot(self.root), self.root + "/a")
        self.assertEqual(slot_contents(self.root + "/a"), {"app.py": OLD})


class Update(Case):
    def test_new_version_is_installed_tried_confirmed_and_reported(self):
        self.reset()
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))
        self.boot("2.0.0")
        self.assertEqual(trial.Running.slot, "b")
        self.assertEqual(self.run_job(), {"version": "2.0.0", "previous": "1.0.0"})
        self.assertEqual(self.status()["state"], "confirmed")
        self.assertEqual(self.job.reports, [(None, {"step": "trial", "version": "2.0.0"})])

    def test_progress_is_reported_once_per_ten_percent_at_most(self):
        self.reset()
        tens = [percent // 10 for percent, _ in self.job.reports[:-1]]
        self.assertEqual(self.job.reports[-1], (100, {"step": "restart", "version": "2.0.0"}))
        self.assertGreater(len(tens), 1)
        self.assertEqual(len(tens), len(set(tens)))

    def test_outcome_is_repeated_when_the_report_was_lost(self):
        self.reset()
        self.boot("2.0.0")
        self.run_job()
        self.boot("2.0.0")
        self.assertEqual(self.run_job(), {"version": "2.0.0", "previous": "1.0.0"})
        self.assertEqual(self.service.requests, [])

    def test_update_back_and_forth(self):
        self.reset()
        self.boot("2.0.0")
        self.run_job()
        self.artifact = Artifact([("app.py", b"VERSION = 3")], version="3.0.0")
        self.boot("2.0.0")
        self.reset(execution=2)
        self.boot("3.0.0")
        self.assertEqual(trial.Running.slot, "a")
        self.assertEqual(self.run_job(execution=2), {"version": "3.0.0", "previous": "2.0.0"})

    def test_lost_link_during_the_download_does_not_end_it(self):
        self.service.drop_after = 6
        self.reset()
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))


class Interrupted(Case):
    def test_download_goes_on_where_it_stopped(self):
        delivered = 0
        for cut in (3, 5, 6):
            self.stop_after(cut)
            delivered += self.service.bytes
            self.boot("1.0.0", "power-on")
        self.reset()
        delivered += self.service.bytes
        # At most the block that was under way is fetched twice; power cuts are test_cuts's.
        self.assertLessEqual(delivered, len(self.artifact.payload) + 3 * BLOCK)
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))

    def stop_after(self, count):
        """Run until `count` data messages were sent, then end the handler as a stopping agent does."""
        job = Job(self.agent, self.artifact.job())
        asyncio.run(self.service.until(count, ota.run(job)))

    def test_cut_between_activation_and_reset(self):
        class Dead(BaseException):
            pass

        def die():
            raise Dead

        self.agent.reset = die
        self.assertRaises(Dead, self.run_job)
        # Still in the old process: not booted yet, so the handler just restarts.
        self.boot_count = self.status()["boots"]
        self.assertEqual(self.boot_count, 0)
        del self.agent.reset
        self.reset()
        self.boot("2.0.0")
        self.assertEqual(self.run_job()["version"], "2.0.0")

    def test_power_loss_in_the_trial_is_survived_twice(self):
        self.reset()
        self.boot("2.0.0")
        self.boot("2.0.0", "power-on")
        self.boot("2.0.0", "power-on")
        self.assertEqual(self.run_job()["version"], "2.0.0")

    def test_trial_that_is_always_interrupted_ends_and_says_so(self):
        self.reset()
        for _ in range(4):
            self.boot("2.0.0", "power-on")
        self.assertEqual(trial.Running.slot, "a")
        self.assertIn("interrupted", self.refused("rolled-back"))

    def test_reset_that_fails_leaves_no_trial_behind(self):
        def broken():
            raise JobFailed("the device did not restart")

        self.agent.reset = broken
        self.assertRaises(JobFailed, self.run_job)
        self.assertEqual(self.status()["state"], "rolled_back")
        self.untouched()

    def test_another_execution_of_the_same_job_starts_anew(self):
        self.reset()
        self.boot("2.0.0")
        trial.failed(self.root, "broken")
        self.boot("1.0.0")
        self.refused("rolled-back")
        self.reset(execution=2)
        self.boot("2.0.0")
        self.assertEqual(self.run_job(execution=2)["version"], "2.0.0")


class Trial(Case):
    def setUp(self):
        super().setUp()
        self.reset()
        self.boot("2.0.0")
        document = trial.status(self.root)
        document["deadline_s"] = 0
        trial.save(self.root, document)

    def rolled_back(self, reason):
        self.assertEqual(self.status()["state"], "rolled_back")
        self.boot("1.0.0")
        self.assertEqual(trial.Running.slot, "a")
        self.assertIn(reason, self.refused("rolled-back"))

    def test_unhealthy_application_goes_back_with_its_reason(self):
        self.agent.health = (False, "pump: dry")
        self.reset()
        self.rolled_back("pump: dry")

    def test_service_that_accepts_nothing_keeps_the_trial_open_until_the_deadline(self):
        self.reset(accepts=False)
        self.rolled_back("not confirmed within 0 s, connected")

    def test_job_that_the_service_ended_goes_back_at_once(self):
        self.reset(ended_by_service=True)
        self.rolled_back("the service ended the job")

    def test_crash_that_the_trampoline_recorded_is_the_reason(self):
        trial.failed(self.root, "ImportError: no module named 'fuel_injection' (app.py:3)")
        self.rolled_back("fuel_injection")

    def test_old_version_never_confirms_the_new_one(self):
        trial.Running.slot = "a"
        # Nothing has to be restarted for it.
        self.assertIn("could not be booted", self.refused("rolled-back"))
        self.assertEqual(self.status()["state"], "rolled_back")

    def test_shutdown_of_the_agent_leaves_the_trial_as_it_is(self):
        async def scenario():
            self.agent.health = (False, "not yet")
            document = trial.status(self.root)
            document["deadline_s"] = 60
            trial.save(self.root, document)
            task = asyncio.create_task(ota.run(Job(self.agent, self.artifact.job())))
            await asyncio.sleep(0.01)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass

        asyncio.run(scenario())
        self.assertEqual(self.status()["state"], "trial")


class Refusals(Case):
    def test_document_is_checked_before_anything_is_asked(self):
        good = self.artifact.job()
        for member, value in (
            ("stream", None),
            ("stream", ""),
            ("stream", "a/b"),
            ("stream", "+"),
            ("stream", "x" * 129),
            ("artifact", None),
            ("artifact", {}),
            ("artifact", {"envelope": 4097, "blocks": 32, "payload": 1}),
            ("artifact", {"envelope": 10, "blocks": True, "payload": 1}),
            ("artifact", {"envelope": 10, "blocks": 32, "payload": 0}),
        ):
            document = dict(good)
            document[member] = value
            with self.assertRaises(JobRejected) as caught:
                self.run_job(document=document)
            self.assertIn(member, str(caught.exception))
        self.assertEqual(self.service.requests, [])

    def test_without_a_trust_file_nothing_is_installed(self):
        self.agent.config.trust = None
        self.refused("no-trust")
        self.untouched()

    def test_foreign_signature(self):
        self.artifact.seal((Key(9),))
        self.boot("1.0.0")
        self.refused("signature")
        self.untouched()

    def test_rules_are_checked_before_the_inactive_slot_is_touched(self):
        compat.make_dirs(self.root + "/b")
        with open(self.root + "/b/app.py", "wb") as f:
            f.write(b"last good")
        for code, members in (
            ("board", {"boards": ["OTHER"]}),
            ("expired", {"expires": 1}),
            ("security-version", {"security_version": 0}),
            ("same-version", {"version": "1.0.0"}),
        ):
            with open(self.root + "/trust.json", "w") as f:
                json.dump(trust(floor=1), f)
            self.artifact = Artifact(FILES, **members)
            self.boot("1.0.0")
            self.refused(code)
        self.assertEqual(slot_contents(self.root + "/b"), {"app.py": b"last good"})
        self.untouched()

    def test_floor_that_a_confirmed_version_raised_is_kept(self):
        self.artifact = Artifact(FILES, security_version=5)
        self.boot("1.0.0")
        self.reset()
        self.boot("2.0.0")
        self.run_job()
        self.artifact = Artifact([("app.py", b"3")], version="3.0.0", security_version=4)
        self.boot("2.0.0")
        self.refused("security-version", execution=2)

    def test_sizes_that_are_not_those_of_the_artifact(self):
        document = self.artifact.job()
        document["artifact"]["payload"] += 1
        self.refused("size", document=document)

    def test_tampered_hash_list(self):
        self.service.files[1] = bytes(len(self.artifact.blocks))
        self.refused("bundle")
        self.untouched()

    def test_tampered_payload(self):
        payload = bytearray(self.artifact.payload)
        payload[9 * BLOCK] ^= 1
        self.service.files[2] = bytes(payload)
        self.assertIn("block 9", self.refused("block-hash"))
        self.untouched()

    def test_stream_that_does_not_exist(self):
        self.service.reject = {"o": "ResourceNotFound", "m": "gone"}
        self.assertIn("ResourceNotFound", self.refused("stream"))

    def test_payload_that_does_not_fit(self):
        from edgeagent.ota.slots import Slots

        saved = Slots.free
        Slots.free = lambda self: 1000
        try:
            self.refused("space")
        finally:
            Slots.free = saved
        self.untouched()

    def test_what_a_cancelled_job_has_left_of_a_patch_makes_room(self):
        from edgeagent.ota.slots import Slots

        patch = self.root + ota.PATCH
        compat.write_atomic(patch, bytes(30000))
        saved = Slots.free
        Slots.free = lambda self: 30000 if compat.exists(patch) else 60000
        try:
            self.reset()
        finally:
            Slots.free = saved

    def test_artifact_that_expires_while_a_gate_is_closed(self):
        self.saved_clock = clock.now, gate._POLL_S
        gate._POLL_S = 0.001
        for execution, stage in enumerate(("download", "restart")):
            now = [1790000000]
            clock.now = lambda now=now: now[0]
            self.artifact = Artifact(FILES, expires=1790000060)
            self.boot("1.0.0")

            def may_update(asked, now=now, stage=stage):
                late = now[0] > 1790000000
                now[0] += 86400 * (asked == stage)
                return late or asked != stage

            self.agent.hooks["may_update"] = may_update
            try:
                self.refused("expired", execution=execution)
            finally:
                clock.now = self.saved_clock[0]
            self.assertEqual(2 in [request["f"] for request in self.service.requests], stage == "restart")
            self.untouched()
        gate._POLL_S = self.saved_clock[1]

    def test_another_update_during_a_trial(self):
        self.reset()
        self.boot("2.0.0")
        self.artifact = Artifact([("app.py", b"3")], version="3.0.0")
        self.boot("2.0.0")
        self.refused("busy", execution=7)

    def test_refused_update_can_be_followed_by_a_good_one(self):
        self.service.files[1] = bytes(len(self.artifact.blocks))
        self.refused("bundle")
        self.boot("1.0.0")
        self.reset(execution=2)
        self.boot("2.0.0")
        self.assertEqual(self.run_job(execution=2)["version"], "2.0.0")

    def test_rotten_slot_that_is_activated_again_is_repaired_first(self):
        self.reset()
        self.boot("2.0.0")
        trial.failed(self.root, "x")
        self.boot("1.0.0")
        damage("%s/store/%s" % (self.root, entries(self.root + "/b")[1][2]), 5)
        self.reset(execution=2)
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))


if __name__ == "__main__":
    unittest.main()
