# SPDX-License-Identifier: Apache-2.0
import unittest

from edgeagent import topics


class Matching(unittest.TestCase):
    def test_exact_topic_matches_itself(self):
        self.assertTrue(topics.matches("a/b", "a/b"))

    def test_plus_matches_exactly_one_level(self):
        self.assertTrue(topics.matches("a/+/c", "a/b/c"))
        self.assertFalse(topics.matches("a/+", "a/b/c"))
        self.assertFalse(topics.matches("a/+", "a"))

    def test_hash_does_not_match_its_parent_on_aws(self):
        self.assertTrue(topics.matches("a/#", "a/b/c"))
        self.assertFalse(topics.matches("a/#", "a"))

    def test_wildcards_do_not_reach_reserved_topics(self):
        self.assertFalse(topics.matches("#", "$aws/things/t/shadow/get"))
        self.assertFalse(topics.matches("+/things/#", "$aws/things/t"))
        self.assertTrue(topics.matches("$aws/things/+/jobs/#", "$aws/things/t/jobs/notify"))


class Building(unittest.TestCase):
    def test_named_and_classic_shadow(self):
        self.assertEqual(topics.shadow("t", "get"), "$aws/things/t/shadow/get")
        self.assertEqual(topics.shadow("t", "update/delta", "n"), "$aws/things/t/shadow/name/n/update/delta")

    def test_upload_stays_within_seven_slashes_after_the_rule(self):
        topic = topics.upload("t", "job-1", 0, 3)
        self.assertEqual(topic, "$aws/rules/edgeagent_upload/t/job-1/0/3")


if __name__ == "__main__":
    unittest.main()
