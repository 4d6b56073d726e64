# SPDX-License-Identifier: Apache-2.0
"""What an update waits for, and when it gives up waiting."""

import asyncio
import unittest

from edgeagent import clock
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.ota import gate, window
from tests.portable.ota_support import refusal
from tests.portable.ota_world import Agent, Job

MONDAY = 1767571200  # 2026-01-05 00:00 UTC
HOUR = 3600
DAY = 24 * HOUR
NIGHT = {"from": "22:00", "to": "04:30"}


def is_open(one, now):
    return not window.closed(one, now)


class Window(unittest.TestCase):
    def test_is_open_from_its_begin_to_before_its_end(self):
        one = {"from": "08:00", "to": "09:30"}
        for minute, wanted in ((479, False), (480, True), (569, True), (570, False)):
            self.assertEqual(is_open(one, MONDAY + minute * 60), wanted, minute)

    def test_may_end_on_the_next_day(self):
        for hour, wanted in ((21, False), (22, True), (23, True), (0, True), (4, True), (5, False)):
            self.assertEqual(is_open(NIGHT, MONDAY + hour * HOUR), wanted, hour)

    def test_days_are_those_on_which_it_opens(self):
        one = dict(NIGHT)
        one["days"] = "Mon-Fri"
        for day, hour, wanted in ((0, 3, False), (0, 23, True), (5, 3, True), (5, 23, False), (6, 3, False)):
            self.assertEqual(is_open(one, MONDAY + day * DAY + hour * HOUR), wanted, (day, hour))

    def test_days_may_be_listed_and_go_over_the_end_of_the_week(self):
        for days, wanted in (("Sat-Mon,Wed", "1010011"), ("Tue", "0100000"), ("Mon-Sun", "1111111")):
            one = {"from": "00:00", "to": "00:00", "days": days}
            self.assertEqual("".join(["%d" % is_open(one, MONDAY + day * DAY) for day in range(7)]), wanted, days)

    def test_is_not_open_while_the_clock_is_not_set(self):
        self.assertEqual(window.closed({"from": "00:00", "to": "00:00"}, 100), "window: the clock is not set")

    def test_bad_windows_are_rejected(self):
        for one in (
            "22:00",
            {},
            {"from": "22:00"},
            {"from": "22", "to": "23:00"},
            {"from": "24:00", "to": "23:00"},
            {"from": "22:60", "to": "23:00"},
            {"from": "2:00", "to": "23:00"},
            {"from": 22, "to": 23},
            {"from": "22:00", "to": "23:00", "days": "Monday"},
            {"from": "22:00", "to": "23:00", "days": "onT"},
            {"from": "22:00", "to": "23:00", "days": ""},
            {"from": "22:00", "to": "23:00", "days": 5},
        ):
            self.assertRaises(JobRejected, window.closed, one, MONDAY)


class Gate(unittest.TestCase):
    def setUp(self):
        self.saved = gate._POLL_S, clock.now
        gate._POLL_S = 0.001
        self.agent = Agent(None)
        self.job = Job(self.agent, {})
        self.stop_after = None

    def tearDown(self):
        gate._POLL_S, clock.now = self.saved

    def wait(self, **document):
        self.job.document = document
        return asyncio.run(gate.wait(self.job, "download", "2.0.0"))

    def refused(self, text, **document):
        document["wait"] = 0
        self.assertIn(text, refusal(self, "gate", self.wait, **document))

    def hook(self, name, values):
        """Answers one of `values` at each question, the last one for ever."""
        asked = []

        def answer(*arguments):
            asked.append(arguments)
            value = values[min(len(asked), len(values)) - 1]
            if isinstance(value, Exception):
                raise value
            return value

        self.agent.hooks[name] = answer
        return asked

    def test_nothing_asked_means_go(self):
        self.wait()
        self.assertEqual(self.job.reports, [])

    def test_the_application_is_asked_with_the_stage_until_it_agrees(self):
        asked = self.hook("may_update", [(False, "pump runs"), False, True])
        self.wait()
        self.assertEqual(asked, [("download",)] * 3)
        reasons = [details["reason"] for _, details in self.job.reports]
        self.assertEqual(reasons, ["application: pump runs", "application: returned False"])
        self.assertEqual(self.job.reports[0][1]["step"], "waiting")

    def test_a_reason_is_told_once(self):
        self.hook("may_update", [False, False, False, False, True])
        self.wait()
        self.assertEqual(len(self.job.reports), 1)

    def test_a_reason_that_did_not_reach_the_service_is_told_again(self):
        self.job.accepts = False
        self.hook("may_update", [False, False, True])
        self.wait()
        self.assertEqual(len(self.job.reports), 2)

    def test_an_application_that_raises_says_not_now(self):
        self.hook("may_update", [ValueError("no idea"), True])
        self.wait()
        self.assertEqual(self.job.reports[0][1]["reason"], "application: ValueError: no idea")

    def test_a_reason_need_not_be_text(self):
        for why, said in ((None, "None"), (3, "3"), ((1, 2), "(1, 2)")):
            self.hook("may_update", [(False, why)])
            self.refused("application: " + said)
        self.hook("battery", [("?", None)])
        self.refused("battery: None", battery=30)

    def test_an_artifact_that_expires_meanwhile_ends_the_wait(self):
        now = [MONDAY]
        clock.now = lambda: now[0]

        def may_update(stage):
            now[0] += HOUR
            return now[0] > MONDAY + 5 * HOUR

        self.agent.hooks["may_update"] = may_update
        with self.assertRaises(UpdateError) as caught:
            asyncio.run(gate.wait(self.job, "restart", "2.0.0", MONDAY + 3 * HOUR))
        self.assertEqual((caught.exception.code, now[0]), ("expired", MONDAY + 4 * HOUR))

    def test_an_async_answer_counts(self):
        async def may_update(stage):
            return False, stage

        self.agent.hooks["may_update"] = may_update
        self.refused("application: download")

    def test_battery_is_waited_for(self):
        self.hook("battery", [12, 29.5, 30])
        self.wait(battery=30)
        reasons = [details["reason"] for _, details in self.job.reports]
        self.assertEqual(reasons, ["battery: 12 %, must be 30", "battery: 29 %, must be 30"])

    def test_a_battery_that_nobody_knows_is_refused(self):
        self.refused("battery: unknown", battery=30)

    def test_a_battery_that_cannot_be_read_is_refused(self):
        self.hook("battery", [OSError(5)])
        self.refused("battery: OSError", battery=30)
        for value in (True, False, "90", None):
            self.hook("battery", [value])
            self.refused("battery", battery=1)

    def test_no_battery_is_asked_if_none_is_wanted(self):
        asked = self.hook("battery", [1])
        self.wait()
        self.assertEqual(asked, [])

    def test_windows_of_job_and_device_must_both_be_open(self):
        self.agent.config.update_window = NIGHT
        clock.now = lambda: MONDAY + 23 * HOUR
        self.wait(window=NIGHT)
        self.refused("opens at 08:00", window={"from": "08:00", "to": "09:00"})
        clock.now = lambda: MONDAY + 12 * HOUR
        self.refused("opens at 22:00", window={"from": "12:00", "to": "13:00"})

    def test_waiting_ends_after_its_time_also_over_resets(self):
        self.hook("may_update", [False])
        self.job.data = {"waited": 100}
        with self.assertRaises(UpdateError):
            self.wait(wait=100)

    def test_how_long_it_has_waited_is_kept(self):
        now = [0]
        saved = clock.ticks, clock.elapsed_ms

        def ticks():
            return now[0]

        def elapsed_ms(start):
            now[0] += 250000
            return now[0] - start

        clock.ticks, clock.elapsed_ms = ticks, elapsed_ms
        try:
            self.hook("may_update", [False] * 5 + [True])
            self.wait()
        finally:
            clock.ticks, clock.elapsed_ms = saved
        self.assertEqual(self.job.data, {"waited": 750})
        self.assertEqual(len(self.job.reports), 2)  # the step timer is restarted as well

    def test_cancelling_the_job_ends_the_wait(self):
        self.hook("may_update", [False])
        self.job.ended_by_service = True
        self.assertRaises(asyncio.CancelledError, self.wait)

    def test_bad_documents_are_rejected(self):
        for document in ({"battery": 101}, {"battery": "30"}, {"wait": -1}, {"wait": 604801}, {"window": "night"}):
            with self.assertRaises(JobRejected):
                self.wait(**document)


if __name__ == "__main__":
    unittest.main()
