# SPDX-License-Identifier: Apache-2.0
"""The shadow client against the service's answers (aws-iot-protocol.md section 9)."""

import json
import unittest

from edgeagent.errors import Refused
from edgeagent.shadow import Shadow
from tests.portable.wire import outcome, play


class Link:
    """Stands for Requests and its client: records calls, answers what the test says."""

    def __init__(self, answer=None):
        self.client = self
        self.answer = answer if answer is not None else {}
        self.calls = []
        self.filters = []
        self.handlers = {}

    async def subscribe(self, filters):
        self.filters += filters

    async def call(self, topic, body):
        self.calls.append((topic, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def on(self, topic, handler):
        self.handlers[topic] = handler


class Asking(unittest.TestCase):
    def test_get_returns_the_document(self):
        link = Link({"state": {"reported": {"a": 1}}, "version": 3})
        self.assertEqual(play(Shadow(link, "t").get())["version"], 3)
        self.assertEqual(link.calls, [("$aws/things/t/shadow/get", {})])

    def test_a_thing_without_shadow_is_none(self):
        self.assertIsNone(play(Shadow(Link(Refused("404", "none")), "t").get()))

    def test_other_refusals_are_raised(self):
        self.assertIsInstance(play(outcome(Shadow(Link(Refused("403", "no")), "t").get())), Refused)

    def test_a_report_may_be_bound_to_a_version(self):
        link = Link()
        play(Shadow(link, "t").update_reported({"a": 1}, 4))
        self.assertEqual(link.calls[0][1], {"state": {"reported": {"a": 1}}, "version": 4})

    def test_named_shadows_have_topics_of_their_own(self):
        link = Link()
        play(Shadow(link, "t", "n").update_reported({"a": 1}))
        self.assertEqual(link.calls, [("$aws/things/t/shadow/name/n/update", {"state": {"reported": {"a": 1}}})])


class Deltas(unittest.TestCase):
    def setUp(self):
        self.link = Link()
        self.seen = []
        self.shadow = Shadow(self.link, "t")

    def watch(self):
        self.shadow.on_delta(lambda state, version: self.seen.append((state, version)))

    def delta(self, body):
        topic = "$aws/things/t/shadow/update/delta"
        self.link.handlers[topic](topic, json.dumps(body).encode())

    def test_the_delta_topic_is_subscribed_only_with_a_handler(self):
        play(self.shadow.subscribe())
        self.assertEqual(len(self.link.filters), 4)
        self.watch()
        play(self.shadow.subscribe())
        self.assertEqual(self.link.filters[-1], "$aws/things/t/shadow/update/delta")

    def test_the_handler_gets_state_and_version(self):
        self.watch()
        self.delta({"state": {"a": 1}, "version": 4})
        self.assertEqual(self.seen, [({"a": 1}, 4)])

    def test_deltas_out_of_order_or_repeated_are_ignored(self):
        self.watch()
        for version in (4, 4, 3, 5):
            self.delta({"state": {}, "version": version})
        self.assertEqual([version for _, version in self.seen], [4, 5])

    def test_malformed_deltas_are_dropped_and_the_next_good_one_is_not(self):
        self.watch()
        for body in ([], {}, {"state": {}}, {"state": {}, "version": "1"}, {"state": 7, "version": 1}, "x"):
            self.delta(body)
        self.link.handlers["$aws/things/t/shadow/update/delta"]("", b"\xff{")
        self.assertEqual(self.seen, [])
        self.delta({"state": {"a": 1}, "version": 1})
        self.assertEqual(self.seen, [({"a": 1}, 1)])

    def test_a_shadow_that_was_deleted_counts_anew(self):
        self.watch()
        self.delta({"state": {"a": 1}, "version": 9})
        self.link.answer = Refused("404", "none")
        play(self.shadow.get())
        self.delta({"state": {"a": 2}, "version": 1})
        self.assertEqual(self.seen[-1], ({"a": 2}, 1))


if __name__ == "__main__":
    unittest.main()
