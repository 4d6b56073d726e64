# SPDX-License-Identifier: Apache-2.0
import unittest

from edgeagent.mqtt.backoff import Backoff


class Delays(unittest.TestCase):
    def test_steps_double_up_to_the_cap_and_keep_at_least_half(self):
        backoff = Backoff()
        for step in (1, 2, 4, 8, 16, 32, 60, 60, 60):
            delay = backoff.next()
            self.assertGreaterEqual(delay, step / 2)
            self.assertLess(delay, step)

    def test_delays_of_a_fleet_differ(self):
        self.assertGreater(len({Backoff().next() for _ in range(50)}), 10)

    def test_reset_starts_over(self):
        backoff = Backoff()
        for _ in range(5):
            backoff.next()
        backoff.reset()
        self.assertLess(backoff.next(), 1)


if __name__ == "__main__":
    unittest.main()
