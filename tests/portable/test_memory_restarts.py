# SPDX-License-Identifier: Apache-2.0
"""Restarts for lack of memory: each counts for the job at hand, whoever has none, and there are only so many."""

import json
import unittest

from edgeagent.errors import Refused
from edgeagent.mqtt import rpc
from tests.portable.job_service import Device, Quick, live

TOPIC = "$aws/things/t/jobs/start-next"


class Case(Quick):
    def setUp(self):
        Quick.setUp(self)
        self.calls = []  # `resumed` of each call of the handler

    def boots(self, prepare, handler, resume, most=9):
        """Boots until the job has ended, each after prepare(device)."""
        boots = 0
        while not self.service.terminal("j"):
            boots += 1
            self.assertTrue(boots <= most)
            device = Device(self.service, boots)
            device.handlers.register("work", handler, resume)
            prepare(device)
            live(device, lambda d: d.idle())
        self.assertEqual(len(self.service.terminal("j")), 1)
        return boots

    def outcome(self):
        return self.service.status("j"), self.service.details("j").get("reason")


class TestStarvedConnection(Case):
    """The board has no memory to connect while a job is at work: the agent restarts it."""

    def starve(self, device):
        # As Agent._keep does it.
        try:
            device.runner._job.starved()
        finally:
            device.port.reset()

    def run_starving(self, resume, times=99, meanwhile=None):
        left = [times]

        async def work(job):
            self.calls.append(job.resumed)
            if left[0]:
                left[0] -= 1
                if meanwhile:
                    meanwhile(job)
                self.starve(job.agent)

        self.service.add("j", {"operation": "work"})
        return self.boots(lambda device: None, work, resume, 20)

    def test_a_job_that_can_go_on_gets_three_restarts(self):
        self.assertEqual(self.run_starving(True, 3), 4)
        self.assertEqual(self.outcome(), ("SUCCEEDED", None))
        self.assertEqual(self.calls, [False, True, True, True])

    def test_one_that_starves_the_connection_for_ever_fails(self):
        self.assertEqual(self.run_starving(True), 5)
        self.assertEqual(self.outcome(), ("FAILED", "out of memory"))
        self.assertEqual(self.calls, [False, True, True, True])

    def test_one_that_cannot_go_on_fails_at_once_with_the_cause(self):
        self.assertEqual(self.run_starving(False), 2)
        self.assertEqual(self.outcome(), ("FAILED", "out of memory"))
        self.assertEqual(self.calls, [False])

    def test_both_kinds_of_restart_are_counted_together(self):
        async def work(job):
            self.calls.append(job.resumed)
            if len(self.calls) % 2:
                raise MemoryError
            self.starve(job.agent)

        self.service.add("j", {"operation": "work"})
        self.assertEqual(self.boots(lambda device: None, work, True), 5)
        self.assertEqual(self.outcome(), ("FAILED", "out of memory"))

    def test_what_the_handler_has_stored_is_kept_and_progress_of_its_own_counts(self):
        seen = []

        def meanwhile(job):
            seen.append(job.data.get("part", 0))
            job.checkpoint(part=len(seen), restarts=0)  # as an upload does with each part

        self.run_starving(True, 8, meanwhile)
        self.assertEqual(self.outcome(), ("SUCCEEDED", None))
        self.assertEqual(seen, list(range(8)))

    def test_a_runner_without_memory_does_not_end_the_handler(self):
        hold = []

        async def work(job):
            self.calls.append(job.resumed)
            await job.agent.until(lambda: hold)

        async def scenario(device):
            await device.until(lambda: self.calls)
            ask = device.runner._ask

            async def short(*arguments):
                device.runner._ask = ask
                raise MemoryError

            device.runner._ask = short
            device.runner._notified()
            await device.until(lambda: device.crashes)
            hold.append(1)
            await device.idle()

        async def run():
            # As Agent._keep does it.
            while True:
                try:
                    return await real()
                except MemoryError:
                    device.crashes += 1

        device = Device(self.service)
        device.crashes = 0
        device.handlers.register("work", work)
        real = device.runner.run
        device.runner.run = run
        self.service.add("j", {"operation": "work"})
        live(device, scenario)
        self.assertEqual((self.outcome(), self.calls, device.crashes), (("SUCCEEDED", None), [False], 1))

    def test_an_outcome_that_waits_for_the_link_stays_as_it_is(self):
        async def work(job):
            job.agent.connected.clear()
            return {"n": 1}

        async def scenario(device):
            await device.until(lambda: device.runner._record and device.runner._record["status"] == "SUCCEEDED")
            self.starve(device)

        device = Device(self.service)
        device.handlers.register("work", work)
        self.service.add("j", {"operation": "work"})
        self.assertTrue(live(device, scenario))
        live(Device(self.service, 2), lambda d: d.idle())
        self.assertEqual((self.service.terminal("j"), self.service.details("j")), (["SUCCEEDED"], {"n": "1"}))


class TestBeforeTheHandler(Case):
    """There is no memory for the job's document, or for the code of its operation."""

    async def work(self, job):
        self.calls.append(job.resumed)

    def short(self, boots):
        """A device that has no memory for documents in its first `boots` boots."""

        def prepare(device):
            call = device.call

            async def answered(topic, body):
                answer = await call(topic, body)
                if device.port.boot <= boots and "jobDocument" in answer.get("execution", ()):
                    raise Refused("MemoryError", "3000")
                return answer

            device.call = answered

        return prepare

    def test_a_document_there_is_no_memory_for_is_tried_again_with_a_fresh_heap(self):
        for resume in (False, True):
            self.setUp()
            self.service.add("j", {"operation": "work"})
            self.assertEqual(self.boots(self.short(3), self.work, resume), 4)
            self.assertEqual(self.outcome(), ("SUCCEEDED", None))
            self.assertEqual(self.calls, [False])

    def test_one_there_is_never_memory_for_has_failed_and_is_not_to_blame(self):
        self.service.add("j", {"operation": "work"})
        self.assertEqual(self.boots(self.short(99), self.work, True), 4)
        self.assertEqual(self.outcome(), ("FAILED", "out of memory"))
        self.assertEqual(self.calls, [])

    def test_code_there_is_no_memory_for_is_tried_again_with_a_fresh_heap(self):
        def prepare(device):
            get = device.handlers.get

            def found(operation):
                if device.port.boot < 3:
                    raise MemoryError
                return get(operation)

            device.handlers.get = found

        self.service.add("j", {"operation": "work"})
        self.assertEqual(self.boots(prepare, self.work, False), 3)
        self.assertEqual(self.outcome(), ("SUCCEEDED", None))
        self.assertEqual(self.calls, [False])

    def test_a_handler_that_cannot_go_on_is_not_called_twice_for_it(self):
        async def work(job):
            self.calls.append(job.resumed)
            job.agent.port.reset()

        self.service.add("j", {"operation": "work"})

        def prepare(device):
            if device.port.boot == 2:
                self.short(2)(device)

        self.boots(prepare, work, False)
        self.assertEqual(self.outcome(), ("FAILED", "out of memory"))
        self.assertEqual(self.calls, [False])


class Client:
    """What Requests needs; answers come from the test."""

    def __init__(self):
        self.subscribe = None
        self.oversized = []
        self.answers = []

    def on(self, topic, handler):
        pass

    def done(self, key, answer):
        self.answers.append(answer)


class TestAnswers(unittest.TestCase):
    """What becomes of an answer that cannot be taken in."""

    def tearDown(self):
        rpc.json = json

    def code(self, payload, error=None):
        class Json:
            def loads(self, data):
                raise error

        requests = rpc.Requests(Client())
        requests._topics["1"] = TOPIC
        rpc.json = Json() if error else json
        requests._reply(TOPIC + "/accepted", payload)
        (answer,) = requests.client.answers
        return answer.code

    def test_lack_of_memory_is_told_from_an_answer_that_is_too_large(self):
        self.assertEqual(self.code(bytearray(9000), MemoryError()), "MemoryError")
        self.assertEqual(self.code(bytearray(9500), MemoryError()), "ReplyTooLarge")
        # Of what could not even be received only the size is known.
        self.assertEqual(self.code(9000), "MemoryError")
        self.assertEqual(self.code(20000), "ReplyTooLarge")

    def test_nesting_is_the_documents_fault(self):
        error = RuntimeError("maximum recursion depth exceeded")
        self.assertEqual(self.code(bytearray(9000), error), "answer is no JSON object")


if __name__ == "__main__":
    unittest.main()
