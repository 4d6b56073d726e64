# SPDX-License-Identifier: Apache-2.0
"""What an attribute may be, and what a report sends."""

import unittest

from edgeagent.attributes import Attributes
from edgeagent.errors import ConfigError, TransportError
from tests.portable.wire import outcome, play


class ShadowOfService:
    """Merges what it is sent, as the service does (aws-iot-protocol.md 9.3)."""

    def __init__(self):
        self.reported = {}
        self.sent = []
        self.down = False

    async def update_reported(self, part):
        if self.down:
            raise TransportError("down")
        self.sent.append(part)
        self.merge(self.reported, part)

    def merge(self, into, part):
        for name in part:
            if part[name] is None:
                into.pop(name, None)
            elif isinstance(part[name], dict) and isinstance(into.get(name), dict):
                self.merge(into[name], part[name])
            else:
                into[name] = dict(part[name]) if isinstance(part[name], dict) else part[name]


class Values(unittest.TestCase):
    def test_plain_values_and_flat_objects_are_taken(self):
        attributes = Attributes()
        for value in ("text", 7, -1, 2.5, True, None, {}, {"a": 1, "b": None}):
            attributes.register("x", value)
            self.assertEqual(attributes.full(), {"x": value})

    def test_everything_else_is_refused_by_name(self):
        for value in (b"x", [1], (1,), {"a": {"b": 1}}, {1: 2}, {"a": [1]}, object(), float("nan"), float("inf")):
            with self.assertRaises(ConfigError) as caught:
                Attributes().register("bad", value)
            self.assertIn("bad", str(caught.exception))

    def test_names_fit_index_queries(self):
        for name in ("a", "engineStarts", "a_b-c9", "x" * 64):
            Attributes().register(name, 1)
        for name in ("", "a.b", "a b", "ä", "$x", "x" * 65):
            self.assertRaises(ConfigError, Attributes().register, name, 1)

    def test_a_function_is_asked_each_time(self):
        values = [1, 2]
        attributes = Attributes()
        attributes.register("n", lambda: values.pop(0))
        self.assertEqual(attributes.full(), {"n": 1})
        self.assertEqual(attributes.full(), {"n": 2})

    def test_a_failing_function_hides_only_itself(self):
        attributes = Attributes()
        attributes.register("bad", lambda: 1 // 0)
        attributes.register("list", lambda: [1])
        attributes.register("good", 1)
        self.assertEqual(attributes.full(), {"good": 1})

    def test_set_takes_several(self):
        attributes = Attributes()
        attributes.set(a=1, b="x")
        self.assertEqual(attributes.full(), {"a": 1, "b": "x"})


class Reports(unittest.TestCase):
    def setUp(self):
        self.shadow = ShadowOfService()
        self.attributes = Attributes(self.shadow)

    def report(self):
        return play(self.attributes.report())

    def test_the_first_report_is_whole_and_the_next_only_what_changed(self):
        self.attributes.set(a=1, b=2)
        self.assertTrue(self.report())
        self.assertFalse(self.report())
        self.attributes.set(b=3)
        self.assertTrue(self.report())
        self.assertEqual(self.shadow.sent, [{"a": 1, "b": 2}, {"b": 3}])

    def test_members_of_an_object_change_one_by_one(self):
        for value in ({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}, {"c": 4}, "text", {"d": 1}):
            self.attributes.set(o=value)
            self.assertTrue(self.report())
            self.assertEqual(self.shadow.reported, {"o": value})
            self.assertFalse(self.report())
        self.assertEqual(self.shadow.sent[1:3], [{"o": {"b": 3, "c": 4}}, {"o": {"a": None, "b": None}}])

    def test_none_deletes_once(self):
        self.attributes.set(a=1)
        self.report()
        self.attributes.set(a=None)
        self.assertTrue(self.report())
        self.assertFalse(self.report())
        self.assertEqual(self.shadow.reported, {})

    def test_a_report_that_failed_is_sent_again(self):
        self.attributes.set(a=1)
        self.shadow.down = True
        self.assertIsInstance(play(outcome(self.attributes.report())), TransportError)
        self.shadow.down = False
        self.assertTrue(self.report())
        self.assertEqual(self.shadow.reported, {"a": 1})

    def test_after_forget_the_report_is_whole_again(self):
        self.attributes.set(a=1, b=2)
        self.report()
        self.attributes.forget()
        self.report()
        self.assertEqual(self.shadow.sent[1], {"a": 1, "b": 2})

    def test_a_dict_changed_in_place_is_noticed(self):
        value = {"a": 1}
        self.attributes.register("o", lambda: value)
        self.report()
        value["a"] = 2
        self.assertTrue(self.report())
        self.assertEqual(self.shadow.reported, {"o": {"a": 2}})

    def test_without_a_shadow_nothing_is_sent(self):
        self.attributes.shadow = None
        self.attributes.set(a=1)
        self.assertFalse(self.report())


if __name__ == "__main__":
    unittest.main()
