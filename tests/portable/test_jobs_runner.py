# SPDX-License-Identifier: Apache-2.0
"""One execution at a time and one terminal status, over lost links, resets, power cuts at every file operation."""

import asyncio
import unittest

from edgeagent.errors import JobFailed, JobRejected, Refused, UpdateError
from tests.portable.job_service import (
    FOLDER,
    Attributes,
    Device,
    Fuse,
    Port,
    Quick,
    Service,
    journal_is_empty,
    live,
    wipe,
)


class Case(Quick):
    def device(self, boot=1):
        return Device(self.service, boot)

    def run_idle(self, device):
        return live(device, lambda d: d.idle())


class Ending(Case):
    def end(self, handler, document=None):
        device = self.device()
        device.handlers.register("work", handler)
        self.service.add("j", document or {"operation": "work"})
        self.run_idle(device)
        self.assertEqual(len(self.service.terminal("j")), 1)
        return self.service.status("j"), self.service.details("j")

    def test_what_the_handler_returns_becomes_the_details_of_succeeded(self):
        async def work(job):
            return {"offset": 12}

        self.assertEqual(self.end(work), ("SUCCEEDED", {"offset": "12"}))

    def test_returning_nothing_is_success(self):
        async def work(job):
            pass

        self.assertEqual(self.end(work)[0], "SUCCEEDED")

    def test_an_exception_is_failed_with_type_and_message(self):
        async def work(job):
            raise ValueError("bad sensor")

        self.assertEqual(self.end(work), ("FAILED", {"reason": "ValueError: bad sensor"}))

    def test_job_failed_carries_its_reason_and_details(self):
        async def work(job):
            raise JobFailed("no oil", {"level": 3})

        self.assertEqual(self.end(work), ("FAILED", {"reason": "no oil", "level": "3"}))

    def test_an_update_error_starts_with_its_code(self):
        async def work(job):
            raise UpdateError("signature", "no trusted key")

        self.assertEqual(self.end(work)[1]["reason"], "signature: no trusted key")

    def test_job_rejected_is_rejected(self):
        async def work(job):
            raise JobRejected("not for me")

        self.assertEqual(self.end(work), ("REJECTED", {"reason": "not for me"}))

    def test_a_handler_that_cancels_itself_has_failed(self):
        async def work(job):
            raise asyncio.CancelledError

        self.assertEqual(self.end(work), ("FAILED", {"reason": "cancelled"}))

    def test_a_handler_that_returns_no_dict_has_failed(self):
        async def work(job):
            return 7

        self.assertIn("not a dict", self.end(work)[1]["reason"])

    def test_an_unknown_operation_is_rejected(self):
        status, details = self.end(None, {"operation": "dance"})
        self.assertEqual((status, details), ("REJECTED", {"reason": "unknown operation dance"}))

    def test_a_bad_document_is_rejected_naming_the_member(self):
        status, details = self.end(None, {"operation": 7})
        self.assertEqual(status, "REJECTED")
        self.assertIn("operation", details["reason"])

    def test_a_document_that_is_no_object_is_rejected(self):
        self.assertEqual(self.end(None, [1])[0], "REJECTED")

    def test_a_document_over_the_cap_is_rejected_with_the_cap(self):
        status, details = self.end(None, {"operation": "work", "a": "x" * 8192})
        self.assertEqual(status, "REJECTED")
        self.assertIn(str(8192), details["reason"])

    def test_a_document_that_does_not_even_arrive_is_rejected_with_the_cap(self):
        device = self.device()
        device.too_large = True
        self.service.add("j", {"operation": "work", "a": "x" * 30000})
        self.run_idle(device)
        self.assertEqual(self.service.status("j"), "REJECTED")
        self.assertIn(str(8192), self.service.details("j")["reason"])

    def test_details_the_service_refuses_do_not_keep_the_status_from_it(self):
        self.service.refusals["j"] = ["InvalidRequest"]

        async def work(job):
            return {"a": 1}

        self.assertEqual(self.end(work)[0], "SUCCEEDED")

    def test_details_that_are_no_dict_or_cannot_be_said_end_the_job_all_the_same(self):
        class Mute:
            def __str__(self):
                raise ValueError("mute")

        async def returned(job):
            return {"a": Mute()}

        async def raised(job):
            raise JobFailed("no oil", [1])

        self.assertEqual(self.end(returned), ("FAILED", {"reason": "ValueError: mute"}))
        self.setUp()
        self.assertEqual(self.end(raised), ("FAILED", {"reason": "no oil"}))

    def test_the_reason_is_told_whatever_number_of_details_there_are(self):
        async def work(job):
            raise JobFailed("no oil", {"k%d" % n: n for n in range(20)})

        self.assertEqual(self.end(work)[1]["reason"], "no oil")

    def test_an_operation_this_device_lacks_the_module_of_is_unknown(self):
        self.assertEqual(self.end(None, {"operation": "runner"})[1]["reason"], "unknown operation runner")
        self.assertIsNone(self.device().handlers.get("document"))


class Conditions(Case):
    def setUp(self):
        super().setUp()
        self.ran = []

    def tearDown(self):
        Attributes.facts = {"engineStarts": 7}
        super().tearDown()

    def end(self, document, resume=False, work=None):
        async def default(job):
            self.ran.append(job.id)

        device = self.device()
        device.handlers.register("work", work or default, resume)
        self.service.add("j", document)
        self.run_idle(device)
        return self.service.status("j"), self.service.details("j")

    def test_a_condition_that_is_met_lets_the_job_run(self):
        self.assertEqual(self.end({"operation": "work", "condition": "engineStarts == 7"})[0], "SUCCEEDED")
        self.assertEqual(self.ran, ["j"])

    def test_one_that_is_not_met_is_succeeded_with_the_present_value_and_nothing_runs(self):
        status, details = self.end({"operation": "work", "condition": "engineStarts >= 20000"})
        self.assertEqual(status, "SUCCEEDED")
        self.assertEqual(
            details, {"skipped": "engineStarts >= 20000", "reason": "condition not met: engineStarts is 7"}
        )
        self.assertEqual((self.ran, self.service.history), ([], [("j", "SUCCEEDED")]))

    def test_it_holds_for_built_in_operations_too(self):
        self.assertEqual(self.end({"operation": "reboot", "condition": "oil == 1"})[1]["skipped"], "oil == 1")

    def test_a_malformed_one_is_rejected_with_the_position(self):
        status, details = self.end({"operation": "work", "condition": "engineStarts >= many"})
        self.assertEqual(status, "REJECTED")
        self.assertIn("position 17", details["reason"])
        self.assertEqual(self.ran, [])

    def test_it_is_not_asked_again_after_a_reset(self):
        seen = []

        async def work(job):
            seen.append(job.resumed)
            if not job.resumed:
                Attributes.facts = {"engineStarts": 8}
                job.reset("test")

        document = {"operation": "work", "condition": "engineStarts == 7"}
        self.end(document, True, work)
        device = self.device(2)
        device.handlers.register("work", work, True)
        self.run_idle(device)
        self.assertEqual(seen, [False, True])
        self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])
        self.assertEqual(self.service.details("j"), {})


class StepTimer(Case):
    def end(self, work, **members):
        device = self.device()
        device.handlers.register("work", work)
        document = {"operation": "work"}
        document.update(members)
        self.service.add("j", document)
        self.run_idle(device)
        return self.service.status("j")

    def test_a_document_starts_it_and_progress_restarts_it(self):
        seen = []

        async def work(job):
            seen.append(self.service.find("j")["timer"])
            await job.progress(10)
            await job.progress(20)

        self.assertEqual(self.end(work, stepTimeoutInMinutes=5), "SUCCEEDED")
        self.assertEqual((seen, self.service.timers), ([5], [5, 5, 5]))

    def test_a_handler_may_start_change_and_stop_it(self):
        async def work(job):
            for minutes in (None, 5, 60, -1):
                job.minutes = minutes
                await job.progress(10)

        self.assertEqual(self.end(work), "SUCCEEDED")
        self.assertEqual(self.service.timers, [5, 60, -1])

    def test_without_one_nothing_is_sent_before_the_end(self):
        async def work(job):
            pass

        self.end(work)
        self.assertEqual((self.service.timers, self.service.history), ([], [("j", "SUCCEEDED")]))

    def test_restarting_it_leaves_the_details_of_the_progress_before(self):
        async def work(job):
            await job.progress(10, step="a")
            await job.progress()
            self.assertEqual(self.service.details("j"), {"percent": "10", "step": "a"})

        self.assertEqual(self.end(work, stepTimeoutInMinutes=5), "SUCCEEDED")

    def test_a_bad_number_of_minutes_is_rejected_by_name(self):
        for minutes in (0, -1, 10081, 1.5, True, "5", [], {}):
            self.setUp()
            self.assertEqual(self.end(None, stepTimeoutInMinutes=minutes), "REJECTED", repr(minutes))
            self.assertIn("stepTimeoutInMinutes", self.service.details("j")["reason"])

    def test_an_execution_that_is_over_by_then_does_not_begin(self):
        ran = []

        async def work(job):
            ran.append(job.id)

        answer = self.service.answer

        def late(rest, body):
            if "stepTimeoutInMinutes" in body:
                self.service.find("j")["status"] = "TIMED_OUT"
            return answer(rest, body)

        self.service.answer = late
        self.assertEqual(self.end(work, stepTimeoutInMinutes=5), "TIMED_OUT")
        self.assertEqual((ran, self.service.terminal("j")), ([], []))


class Queue(Case):
    def test_queued_jobs_run_one_after_the_other_in_order(self):
        device = self.device()
        running = []
        order = []

        async def work(job):
            running.append(job.id)
            self.assertEqual(len(running), 1)
            await asyncio.sleep(0.002)
            order.append(running.pop())

        device.handlers.register("work", work)
        for n in range(4):
            self.service.add("j%d" % n, {"operation": "work"})
        self.run_idle(device)
        self.assertEqual(order, ["j0", "j1", "j2", "j3"])

    def test_a_notification_wakes_an_idle_runner(self):
        device = self.device()

        async def work(job):
            pass

        device.handlers.register("work", work)

        async def scenario(device):
            await device.until(lambda: "start-next" in device.calls)
            self.service.add("j", {"operation": "work"})
            await device.idle()

        live(device, scenario)
        self.assertEqual(self.service.status("j"), "SUCCEEDED")

    def test_subscriptions_cover_every_reply_and_the_notification(self):
        device = self.device()

        async def scenario(device):
            pass

        live(device, scenario)
        rests = [name[len("$aws/things/t/jobs/") :] for name in device.filters]
        self.assertEqual(rests, ["start-next/+", "+/get/+", "+/update/+", "notify-next"])


class Revoked(Case):
    def cancelled(self, act):
        device = self.device()
        seen = []

        async def work(job):
            try:
                seen.append("begun")
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})

        async def scenario(device):
            await device.until(lambda: seen)
            await act(device)
            await device.until(lambda: len(seen) == 2)
            await device.idle()

        live(device, scenario)
        self.assertEqual(seen, ["begun", "cancelled"])
        self.assertEqual(self.service.terminal("j"), [])

    def test_a_cancelled_execution_stops_its_handler(self):
        async def act(device):
            self.service.cancel("j")

        self.cancelled(act)

    def test_a_deleted_job_stops_its_handler(self):
        async def act(device):
            self.service.executions.clear()
            self.service.on_change()

        self.cancelled(act)

    def test_a_cancellation_while_the_link_is_down_is_seen_at_the_reconnect(self):
        async def act(device):
            device.connected.clear()
            self.service.cancel("j")
            await device.connect()

        self.cancelled(act)

    def test_another_execution_in_front_does_not_stop_ours(self):
        device = self.device()
        release = asyncio.Event()

        async def work(job):
            if job.id == "j":
                await release.wait()

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})

        async def scenario(device):
            await device.until(lambda: device.calls.count("start-next"))
            self.service.add("k", {"operation": "work"})
            await device.until(lambda: "j/get" in device.calls)
            release.set()
            await device.idle()

        live(device, scenario)
        self.assertEqual(self.service.history, [("j", "SUCCEEDED"), ("k", "SUCCEEDED")])

    def test_progress_cancels_the_handler_of_an_execution_that_is_over(self):
        device = self.device()
        seen = []

        async def work(job):
            self.service.find("j")["status"] = "TIMED_OUT"
            try:
                await job.progress(10)
            except asyncio.CancelledError:
                seen.append(job.revoked)
                raise

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})
        self.run_idle(device)
        self.assertEqual(seen, [True])
        self.assertEqual(self.service.status("j"), "TIMED_OUT")

    def test_a_handler_that_fails_while_it_is_cancelled_reports_nothing(self):
        device = self.device()

        async def work(job):
            self.service.find("j")["status"] = "CANCELED"
            try:
                await job.progress(10)
            finally:
                raise ValueError("clean-up failed")

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})
        self.run_idle(device)
        self.assertEqual(self.service.history, [])

    def test_a_report_for_a_finished_execution_never_hits_its_retry(self):
        device = self.device()

        async def work(job):
            if job.execution == 1:
                self.service.find("j", 1)["status"] = "TIMED_OUT"
                self.service.add("j", {"operation": "work"}, 2)
                raise JobFailed("too late")

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})
        self.run_idle(device)
        self.assertEqual(self.service.find("j", 2)["status"], "SUCCEEDED")
        self.assertEqual(self.service.history, [("j", "SUCCEEDED")])


class Link(Case):
    def test_a_lost_link_does_not_stop_the_handler_and_its_outcome_waits_for_the_next(self):
        device = self.device()
        done = []

        async def work(job):
            device.connected.clear()
            await asyncio.sleep(0.002)
            done.append(True)

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})

        async def scenario(device):
            await device.until(lambda: done and not journal_is_empty())
            self.assertEqual(self.service.status("j"), "IN_PROGRESS")
            await device.connect()
            await device.idle()

        live(device, scenario)
        self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])

    def test_progress_waits_for_the_link_and_is_then_accepted(self):
        device = self.device()
        down = []
        accepted = []

        async def work(job):
            device.connected.clear()
            down.append(True)
            accepted.append(await job.progress(50, step="zeroing"))

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})

        async def scenario(device):
            await device.until(lambda: down)
            await device.connect()
            await device.idle()

        live(device, scenario)
        self.assertEqual(self.service.history, [("j", "IN_PROGRESS"), ("j", "SUCCEEDED")])
        self.assertEqual(accepted, [True])

    def test_progress_gives_up_without_ending_the_job(self):
        device = self.device()
        self.service.refusals["j"] = ["InvalidRequest"]

        async def work(job):
            return {"accepted": await job.progress(50)}

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})
        self.run_idle(device)
        self.assertEqual(self.service.details("j"), {"accepted": "false"})

    def test_lost_answers_to_every_request_still_give_one_terminal_status(self):
        device = self.device()

        async def work(job):
            device.lose_replies = 1
            await job.progress(50)
            device.lose_replies = 1

        device.handlers.register("work", work)
        device.lose_replies = 1
        self.service.add("j", {"operation": "work"})
        self.run_idle(device)
        self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])

    def test_a_report_that_another_writer_came_before_is_sent_again_with_its_details(self):
        device = self.device()
        self.service.refusals["j"] = ["VersionMismatch"]

        async def work(job):
            return {"n": 1}

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})
        self.run_idle(device)
        self.assertEqual((self.service.history, self.service.details("j")), ([("j", "SUCCEEDED")], {"n": "1"}))

    def test_a_throttled_report_is_tried_again(self):
        device = self.device()
        self.service.refusals["j"] = ["RequestThrottled", "InternalError", "RequestThrottled"]

        async def work(job):
            pass

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})
        self.run_idle(device)
        self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])

    def test_a_service_that_takes_rejected_only_before_the_start_gets_failed(self):
        device = self.device()
        answer = self.service.answer

        def strict(rest, body):
            if body.get("status") == "REJECTED":
                raise Refused("InvalidStateTransition", "started", {"executionState": {"status": "IN_PROGRESS"}})
            return answer(rest, body)

        self.service.answer = strict
        self.service.add("j", {"operation": "dance"})
        self.run_idle(device)
        self.assertEqual(self.service.status("j"), "FAILED")
        self.assertIn("unknown operation", self.service.details("j")["reason"])


class Resets(Case):
    def two_boots(self, first, second=None, resume=False):
        """The handler `first` in boot 1, which ends by a power cut; `second` in boot 2."""
        device = self.device(1)
        device.handlers.register("work", first, resume)
        self.service.add("j", {"operation": "work", "n": 5})
        self.assertTrue(self.run_idle(device))
        device = self.device(2)
        device.handlers.register("work", second or first, resume)
        return device

    def test_a_handler_that_cannot_resume_has_failed_with_the_cause(self):
        async def work(job):
            job.reset("test")

        self.run_idle(self.two_boots(work))
        self.assertEqual(self.service.status("j"), "FAILED")
        self.assertEqual(self.service.details("j"), {"reason": "interrupted by a reset (watchdog)"})

    def test_a_handler_that_can_resume_gets_its_checkpoint_and_the_document_back(self):
        seen = []

        async def first(job):
            job.checkpoint(a=1, b=2)
            job.checkpoint(b=3)
            job.reset("test")

        async def second(job):
            seen.append((job.resumed, job.data, job.document["n"], job.id, job.execution))

        self.run_idle(self.two_boots(first, second, True))
        self.assertEqual(seen, [(True, {"a": 1, "b": 3}, 5, "j", 1)])
        self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])

    def test_an_execution_that_was_cancelled_meanwhile_is_forgotten_and_the_next_one_runs(self):
        seen = []

        async def first(job):
            job.reset("test")

        async def second(job):
            seen.append((job.id, job.resumed))

        device = self.two_boots(first, second, True)
        self.service.cancel("j")
        self.service.add("k", {"operation": "work"})
        self.run_idle(device)
        self.assertEqual(seen, [("k", False)])
        self.assertEqual(self.service.terminal("j"), [])

    def test_a_document_too_large_after_the_reset_is_that_of_our_own_execution(self):
        async def first(job):
            job.reset("test")

        device = self.two_boots(first, first, True)
        device.too_large = True
        self.service.executions.insert(0, dict(self.service.find("j"), jobId="other"))
        live(device, lambda d: d.until(lambda: self.service.terminal("j")))
        self.assertEqual(self.service.history[0], ("j", "REJECTED"))

    def test_days_offline_with_a_report_to_send_and_a_queue_that_changed(self):
        device = self.device(1)
        ran = []

        async def work(job):
            ran.append(job.id)
            device.connected.clear()

        device.handlers.register("work", work)
        for name in ("j", "k", "l"):
            self.service.add(name, {"operation": "work"})

        async def scenario(device):
            await device.until(lambda: ran and not device.runner._job)

        live(device, scenario)
        self.service.cancel("j", "TIMED_OUT")
        self.service.cancel("k")
        self.service.add("j", {"operation": "work"}, 2)
        device = self.device(2)

        async def again(job):
            ran.append("%s/%d" % (job.id, job.execution))

        device.handlers.register("work", again)
        self.run_idle(device)
        self.assertEqual(ran, ["j", "l/1", "j/2"])
        self.assertEqual(self.service.history, [("l", "SUCCEEDED"), ("j", "SUCCEEDED")])

    def test_a_report_that_was_not_accepted_before_the_reset_is_sent_after_it(self):
        device = self.device(1)

        async def work(job):
            device.connected.clear()
            return {"n": 1}

        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})

        async def scenario(device):
            await device.until(lambda: device.runner._record and device.runner._record["status"] == "SUCCEEDED")

        live(device, scenario)
        self.assertEqual(self.service.terminal("j"), [])
        self.run_idle(self.device(2))
        self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])
        self.assertEqual(self.service.details("j"), {"n": "1"})

    def out_of_memory(self, times):
        """Boots until the job ends, its handler out of memory `times` times: number of boots."""
        left = [times]

        async def hungry(job):
            if left[0]:
                left[0] -= 1
                raise MemoryError
            return {}

        self.service.add("j", {"operation": "hungry"})
        boots = 0
        while not self.service.terminal("j"):
            boots += 1
            device = self.device(boots)
            device.handlers.register("hungry", hungry, True)
            self.assertEqual(self.run_idle(device), bool(times >= boots and boots <= 3))  # True: it was restarted
        return boots

    def test_an_operation_that_can_go_on_is_given_a_fresh_heap(self):
        self.assertEqual(self.out_of_memory(2), 3)
        self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])

    def test_one_that_never_has_enough_memory_fails(self):
        self.assertEqual(self.out_of_memory(9), 4)
        self.assertEqual(self.service.terminal("j"), ["FAILED"])
        self.assertEqual(self.service.details("j"), {"reason": "out of memory"})

    def test_a_port_that_does_not_restart_fails_the_job(self):
        Port.resets = False
        device = self.device()
        self.service.add("j", {"operation": "reboot"})
        self.run_idle(device)
        self.assertEqual(self.service.details("j")["reason"], "the device did not restart")

    def test_a_damaged_journal_only_costs_the_checkpoint(self):
        async def first(job):
            job.reset("test")

        async def second(job):
            return {"resumed": job.resumed}

        self.two_boots(first, second, True)
        with open(FOLDER + "/job.json", "wb") as file:
            file.write(b"garbage")
        device = self.device(2)
        device.handlers.register("work", second, True)
        self.run_idle(device)
        self.assertEqual(self.service.details("j"), {"resumed": "false"})


class PowerCuts(Case):
    def sweep(self, document, prepare, judge):
        """Cut the power at every file operation of a clean run, in every mode; then boot on until all is done."""
        for mode in ("before", "torn", "after"):
            at = 0
            cut = True
            while cut:
                at += 1
                wipe()
                self.service = Service()
                self.service.add("j", document)
                state = {}
                boot = 1
                device = self.device(boot)
                prepare(device, state)
                with Fuse(at, mode) as fuse:
                    alive = not self.run_idle(device)
                cut = fuse.dead
                while not alive:
                    boot += 1
                    self.assertTrue(boot < 10)
                    device = self.device(boot)
                    prepare(device, state)
                    alive = not self.run_idle(device)
                self.assertEqual(len(self.service.terminal("j")), 1, "%s %d" % (mode, at))
                judge(state, boot)
            self.assertTrue(at > 6)

    def test_a_handler_that_cannot_resume_runs_at_most_once(self):
        def prepare(device, state):
            async def work(job):
                state["ran"] = state.get("ran", 0) + 1

            device.handlers.register("work", work)

        def judge(state, boot):
            ran = state.get("ran", 0)
            self.assertTrue(ran <= 1)
            if self.service.status("j") == "SUCCEEDED":
                self.assertEqual(ran, 1)

        self.sweep({"operation": "work"}, prepare, judge)

    def test_a_resuming_handler_finishes_and_its_steps_are_not_lost(self):
        def prepare(device, state):
            async def work(job):
                for n in range(job.data.get("n", 0), 3):
                    state[n] = state.get(n, 0) + 1
                    job.checkpoint(n=n + 1)

            device.handlers.register("work", work, True)

        def judge(state, boot):
            self.assertEqual(self.service.status("j"), "SUCCEEDED")
            self.assertEqual(sorted(state), [0, 1, 2])
            self.assertTrue(max(state.values()) <= 2)

        self.sweep({"operation": "work"}, prepare, judge)

    def test_a_reboot_succeeds_only_after_a_restart(self):
        def judge(state, boot):
            self.assertEqual(self.service.status("j"), "SUCCEEDED")
            self.assertTrue(boot >= 2)
            self.assertEqual(self.service.details("j")["bootId"][:5], "boot-")

        self.sweep({"operation": "reboot"}, lambda device, state: None, judge)


if __name__ == "__main__":
    unittest.main()
