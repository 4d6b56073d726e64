# SPDX-License-Identifier: Apache-2.0
"""The condition language: equal to Python's own comparisons, and nothing but JobRejected for what is malformed."""

import unittest

from edgeagent.errors import JobRejected
from edgeagent.jobs.condition import JobSkipped, check

FACTS = {
    "engineStarts": 19000,
    "site": "berlin",
    "ok": True,
    "load": 0.5,
    "memory": {"free": 1000},
    "gone": None,
    "2nd-x_y": -3,
}


class Random:
    """Numbers from a seed, the same on both runtimes."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.state >> 8) % limit

    def pick(self, items):
        return items[self.below(len(items))]


def met(text, facts=None):
    try:
        check(text, FACTS if facts is None else facts)
    except JobSkipped:
        return False
    return True


class Meaning(unittest.TestCase):
    def skipped(self, text):
        with self.assertRaises(JobSkipped) as caught:
            check(text, FACTS)
        return caught.exception

    def test_each_operator_compares_numbers(self):
        for value in (18999, 19000, 19001, 19000.5, -1):
            for operator, expected in (
                ("==", 19000 == value),
                ("!=", 19000 != value),
                ("<", 19000 < value),
                ("<=", 19000 <= value),
                (">", 19000 > value),
                (">=", 19000 >= value),
            ):
                self.assertEqual(met("engineStarts %s %s" % (operator, value)), expected, "%s %s" % (operator, value))

    def test_texts_bools_and_members_of_a_dict_are_compared(self):
        for text in ("site == 'berlin'", "site < 'c'", "ok == true", "ok != false", "memory.free >= 1e3"):
            self.assertTrue(met(text), text)
        for text in ("site == 'Berlin'", "site >= 'c'", "ok == false", "memory.free > 1000"):
            self.assertFalse(met(text), text)

    def test_all_comparisons_must_be_met_and_blanks_do_not_matter(self):
        self.assertTrue(met("  ok==true and load<1 and 2nd-x_y==-3 "))
        self.assertFalse(met("ok == true and load > 1 and site == 'berlin'"))

    def test_not_met_is_succeeded_with_the_comparison_and_the_present_value(self):
        error = self.skipped("ok == true and engineStarts >= 20000 and site == 'x'")
        self.assertEqual(error.status, "SUCCEEDED")
        self.assertEqual(error.body, {"skipped": "engineStarts >= 20000"})
        self.assertEqual(str(error), "condition not met: engineStarts is 19000")

    def test_what_has_no_value_is_unknown_and_meets_nothing(self):
        for name in ("oil", "gone", "memory", "memory.used", "site.x", "memory.free.x"):
            for operator in ("==", "!=", "<", ">="):
                error = self.skipped("%s %s 1" % (name, operator))
                self.assertEqual(str(error), "condition not met: %s is unknown" % name)

    def test_values_of_different_kinds_are_different_and_have_no_order(self):
        for text in ("site != 1", "ok != 1", "engineStarts != '19000'", "engineStarts != true"):
            self.assertTrue(met(text), text)
        for text in ("site == 1", "ok == 1", "ok < 2", "site > 1", "engineStarts <= '9'", "engineStarts >= '0'"):
            self.assertFalse(met(text), text)

    def test_a_long_value_is_shortened_in_the_reason(self):
        with self.assertRaises(JobSkipped) as caught:
            check("a == 1", {"a": "x" * 5000})
        self.assertLess(len(str(caught.exception)), 200)


class Malformed(unittest.TestCase):
    def test_the_position_is_named(self):
        for text, position in (
            ("", 1),
            ("   ", 4),
            ("'a' == 1", 1),
            ("== 1", 1),
            ("engineStarts", 13),
            ("engineStarts = 1", 14),
            ("engineStarts => 1", 14),
            ("engineStarts ==", 16),
            ("engineStarts == x", 17),
            ("engineStarts == 'x", 17),
            ("engineStarts == TRUE", 17),
            ("ok < true", 6),
            ("ok == true or ok == true", 12),
            ("ok == true and", 15),
            ("ok == true ok", 12),
            ("ok == true and 'x' == 1", 16),
            ("ok == true; reboot", 11),
            ("(ok == true)", 1),
            ("ok == true\n", 11),
            ("a..b == 1", 1),
            (".a == 1", 1),
            ("a. == 1", 1),
            ("a+b == 1", 1),
            ("ö == 1", 1),
            ("a == 1.", 6),
            ("a == .5", 6),
            ("a == 1.2.3", 6),
            ("a == +1", 6),
            ("a == 1_0", 6),
            ("a == 1e", 6),
            ("a == e5", 6),
            ("a == 0x10", 6),
            ("a == --1", 6),
            ("a == -", 6),
            ("a == 1-1", 6),
            ('a == "x"', 6),
            ("a == nan", 6),
            ("a == 1and b == 2", 6),
            ("a == -inf", 6),
        ):
            with self.assertRaises(JobRejected) as caught:
                check(text, {})
            self.assertEqual(str(caught.exception).split(":")[1], " position %d" % position, repr(text))

    def test_what_is_malformed_behind_a_comparison_that_is_not_met_is_rejected_too(self):
        with self.assertRaises(JobRejected):
            check("oil == 1 and", FACTS)

    def test_anything_but_a_text_within_the_cap_is_rejected(self):
        for value in (None, 7, True, [], {}, "a == '%s'" % ("x" * 256)):
            with self.assertRaises(JobRejected) as caught:
                check(value, FACTS)
            self.assertIn("256", str(caught.exception))


class Properties(unittest.TestCase):
    def test_it_equals_pythons_own_comparisons(self):
        seed = 20260101
        random = Random(seed)
        values = (0, 1, -1, 7, 19000, 2.5, -0.25, 1e20, True, False, "", "a", "b", "1", "é", "and", "true", "a == 1")
        names = ("a", "B-1", "c_2", "d.x", "true", "and", "1")
        functions = {
            "==": lambda a, b: a == b,
            "!=": lambda a, b: a != b,
            "<": lambda a, b: a < b,
            "<=": lambda a, b: a <= b,
            ">": lambda a, b: a > b,
            ">=": lambda a, b: a >= b,
        }
        operators = sorted(functions)

        def kind(value):
            return bool if isinstance(value, bool) else str if isinstance(value, str) else float

        def literal(value):
            if isinstance(value, bool):
                return "true" if value else "false"
            return "'%s'" % value if isinstance(value, str) else str(value)

        for round in range(1500):
            facts = {}
            for name in names:
                if random.below(6):
                    value = random.pick(values)
                    if "." in name:
                        facts["d"] = {"x": value}
                    else:
                        facts[name] = value
            parts = []
            expected = True
            for _ in range(1 + random.below(4)):
                name = random.pick(names)
                value = random.pick(values)
                operator = random.pick(operators)
                if isinstance(value, bool):
                    operator = random.pick(("==", "!="))
                parts.append(random.pick(("%s %s %s", "  %s%s%s ", "%s  %s  %s")) % (name, operator, literal(value)))
                held = facts.get("d", {}).get("x") if name == "d.x" else facts.get(name)
                if held is None:
                    good = False
                elif kind(held) is not kind(value):
                    good = operator == "!="
                else:
                    good = functions[operator](held, value)
                expected = expected and good
            text = " and ".join(parts)
            if len(text) <= 256:
                self.assertEqual(met(text, facts), expected, "seed %d round %d: %s of %s" % (seed, round, text, facts))

    def test_nothing_is_raised_for_any_text_but_a_rejection(self):
        seed = 20260102
        random = Random(seed)
        pieces = ("a", "ok", ".", "==", "<", ">", "=", "!", "'", " ", "and", "1", "-", "+", "e", "true", "\n", "\x00")
        pieces += ("é", "☃", '"', "(", "999999999999999999999999", "1e999", "_", "site", "memory", "'x'")
        rejected = 0
        for round in range(4000):
            text = "".join([random.pick(pieces) for _ in range(random.below(14))])
            try:
                met(text)
            except JobRejected:
                rejected += 1
            except Exception as error:
                self.fail("seed %d round %d: %r: %r" % (seed, round, text, error))
        self.assertGreater(rejected, 1000)
        self.assertLess(rejected, 4000)


if __name__ == "__main__":
    unittest.main()
