# SPDX-License-Identifier: Apache-2.0
"""What the model test (tests/model) has found, each in its smallest form."""

import unittest

from edgeagent.errors import Refused
from tests.portable.job_service import Device, Quick, live


class Found(Quick):
    def add(self, queued_at):
        self.service.add("j", {"operation": "work"})
        self.service.find("j")["queuedAt"] = queued_at

    def ended_offline(self, meanwhile):
        """A handler ends while the link is down; `meanwhile()` before it is back. How often the handler ran."""
        runs = []

        async def work(job):
            runs.append(job.id)
            if len(runs) == 1:
                device.connected.clear()

        async def scenario(device):
            await device.until(lambda: device.runner._record and device.runner._record["status"] == "SUCCEEDED")
            meanwhile()
            await device.connect()
            await device.idle()

        device = Device(self.service)
        device.handlers.register("work", work)
        self.add(1)
        live(device, scenario)
        self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])
        return len(runs)

    def test_an_outcome_is_not_reported_for_a_later_job_with_the_same_id(self):
        def meanwhile():
            self.service.executions.clear()
            self.add(2)

        self.assertEqual(self.ended_offline(meanwhile), 2)

    def test_nor_if_that_job_is_in_progress_already(self):
        def meanwhile():
            self.service.executions.clear()
            self.add(2)
            self.service.find("j")["status"] = "IN_PROGRESS"  # by a start-next that was late

        self.assertEqual(self.ended_offline(meanwhile), 2)

    def test_an_outcome_is_reported_after_the_reconnect_if_the_job_is_the_same(self):
        self.assertEqual(self.ended_offline(lambda: None), 1)

    def test_a_late_answer_that_is_too_large_does_not_reject_the_job_at_hand(self):
        async def work(job):
            return {"n": job.document["n"]}

        device = Device(self.service)
        device.handlers.register("work", work)
        call = device.call

        async def late(topic, body):
            device.call = call
            await call(topic, body)
            raise Refused("ReplyTooLarge", "20000")  # what was too large is the answer to an earlier start-next

        device.call = late
        self.service.add("j", {"operation": "work", "n": 5})
        live(device, lambda d: d.idle())
        self.assertEqual((self.service.status("j"), self.service.details("j")), ("SUCCEEDED", {"n": "5"}))


if __name__ == "__main__":
    unittest.main()
