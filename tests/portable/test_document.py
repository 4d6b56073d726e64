# SPDX-License-Identifier: Apache-2.0
import json
import unittest

from edgeagent.compat import MICROPYTHON
from edgeagent.errors import JobRejected
from edgeagent.jobs import document


def step(kind="runHandler", **given):
    return {"action": {"name": "a", "type": kind, "input": given}}


class BadText(str):
    def encode(self):
        raise ValueError


class Understanding(unittest.TestCase):
    def refused(self, value):
        with self.assertRaises(JobRejected) as caught:
            document.parse(value)
        return str(caught.exception)

    def test_our_form_names_the_operation_and_all_else_is_for_its_handler(self):
        parsed = document.parse({"operation": "calibrate", "offset": 3, "deep": {"a": [1]}})
        self.assertEqual(parsed, "calibrate")

    def test_the_managed_template_aws_reboot_is_a_reboot(self):
        given = {
            "version": "1.0",
            "steps": [
                {
                    "action": {
                        "name": "Reboot",
                        "type": "runHandler",
                        "input": {"handler": "reboot.sh", "path": "default"},
                        "runAsUser": "",
                    }
                }
            ],
        }
        self.assertEqual(document.parse(given), "reboot" if MICROPYTHON else "steps")

    def test_other_steps_are_refused_by_boards_and_left_to_their_handler_on_linux(self):
        for steps in (
            [step(handler="shutdown.sh")],
            [step("runCommand", command="ls")],
            [step(handler="reboot.sh"), step(handler="reboot.sh")],
        ):
            self.programs({"version": "1.0", "steps": steps})

    def test_malformed_steps_too(self):
        for steps in ({}, [], 7, None, [7], [{"action": {}}], [{"action": {"type": "runHandler"}}], [{"action": []}]):
            self.programs({"steps": steps})
        self.programs({"steps": [step()]})

    def test_the_older_form_of_the_device_client_is_a_step(self):
        self.programs({"operation": "download-file.sh", "args": ["https://example.org/x", "/tmp/x"]})

    def programs(self, value):
        if MICROPYTHON:
            self.assertIn("steps: only", self.refused(value))
        else:
            self.assertEqual(document.parse(value), "steps")

    def test_an_aws_ota_update_is_recognised(self):
        self.assertEqual(document.parse({"afr_ota": {"files": []}}), "afr_ota")

    def test_half_a_surrogate_pair_is_refused(self):
        # MicroPython's decoder does not take it in the first place.
        self.assertIn("no text", self.refused({"operation": "x", "a": BadText("x")}))

    def test_anything_but_an_object_is_refused(self):
        for value in (None, [], "reboot", 7, True):
            self.assertIn("no object", self.refused(value))

    def test_an_operation_that_is_no_name_is_refused_by_name(self):
        for value in (None, 7, "", "a b", "x" * 65, "../ota", ["ota"], {}):
            self.assertIn("operation must be", self.refused({"operation": value}))
        self.assertIn("operation must be", self.refused({}))

    def test_a_document_over_the_cap_is_refused_with_the_cap_in_the_reason(self):
        self.assertIn(str(8192), self.refused({"operation": "x", "a": "y" * 8192}))

    def test_a_document_just_within_the_cap_is_taken(self):
        frame = len('{"operation":"x","a":""}')
        parsed = document.parse({"operation": "x", "a": "y" * (8192 - frame)})
        self.assertEqual(parsed, "x")

    def test_deep_nesting_is_refused(self):
        value = []
        for _ in range(4000):
            value = [value]
        with self.assertRaises(JobRejected):
            document.parse({"operation": "x", "a": value})


class Measuring(unittest.TestCase):
    def test_the_counted_size_is_that_of_compact_json(self):
        for value in ({}, [], {"a": 1}, {"a": [1, True, None, "x"]}, [[], {}], {"ü": "☃"}, 'a\n"\\', -12.5):
            text = json.dumps(value).replace(", ", ",").replace(": ", ":")
            expected = len('{"ü":"☃"}'.encode()) if value == {"ü": "☃"} else len(text)
            self.assertTrue(abs(document.size(value) - expected) <= 3, repr(value))


if __name__ == "__main__":
    unittest.main()
