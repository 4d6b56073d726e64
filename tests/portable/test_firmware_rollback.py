# SPDX-License-Identifier: Apache-2.0
"""The job operation "rollback" of an ESP32's firmware. The chip is hil/esp32_flash.py."""

import asyncio
import unittest

from edgeagent import compat
from edgeagent.errors import JobRejected
from edgeagent.jobs import rollback
from edgeagent.ota import kinds, trial
from tests.portable import test_partition
from tests.portable.ota_world import Agent, Job, Reset, Service

ROOT = test_partition.ROOT


class Esp32:
    """As `sys`."""

    platform = "esp32"


class TestRollback(test_partition.Case):
    """Two updates were confirmed: v1 runs, v2 is in the other partition, both of security version 3."""

    def setUp(self):
        test_partition.Case.setUp(self)
        self.saved = kinds.sys
        kinds.sys = trial.sys = Esp32
        self.chip()
        self.update(test_partition.NEW, "a1")
        self.update(test_partition.OLD, "a2")

    def tearDown(self):
        kinds.sys = trial.sys = self.saved
        test_partition.Case.tearDown(self)

    def back(self, **members):
        document = {"operation": "rollback", "kind": "firmware"}
        document.update(members)
        return asyncio.run(rollback.run(Job(Agent(Service({}), ROOT), document, "back")))

    def test_goes_back_to_the_image_before_and_proves_it(self):
        self.assertRaises(Reset, self.back)
        self.assertEqual(self.restart().running[0], "ota_1")
        done = self.back()
        self.assertEqual(done, {"version": "v2", "previous": "v1"})
        self.assertEqual(self.restart().running[0], "ota_1")
        self.assertEqual(self.back(), done)  # the report was lost

    def test_what_is_not_kept_is_refused(self):
        self.assertRaises(JobRejected, lambda: self.back(version="v1"))
        self.flash.data[0x20000] ^= 1
        self.assertEqual(self.code(self.back), "slot")
        self.assertEqual(trial.status(ROOT + "/firmware")["state"], "confirmed")

    def test_the_security_floor_holds(self):
        self.chip()
        compat.remove_tree(ROOT)
        self.update(test_partition.NEW, "a1")  # over the factory's image, of security version 0
        self.assertEqual(self.code(self.back), "security-version")

    def test_a_partition_that_cannot_be_read_is_the_reason(self):
        real = self.one.Partition.readblocks

        def broken(part, block, buffer, offset=0):
            if part.info()[4] == "ota_1":
                raise OSError(5)
            return real(part, block, buffer, offset)

        self.one.Partition.readblocks = broken
        self.assertEqual(self.code(self.back), "storage")


if __name__ == "__main__":
    unittest.main()
