# SPDX-License-Identifier: Apache-2.0
import unittest

from edgeagent.errors import ProtocolError
from edgeagent.jobs import protocol


def data(**changes):
    found = {
        "jobId": "j-1",
        "status": "IN_PROGRESS",
        "queuedAt": 1,
        "lastUpdatedAt": 1,
        "versionNumber": 2,
        "executionNumber": 1,
        "jobDocument": {"operation": "reboot"},
    }
    for name in changes:
        found[name] = changes[name]
        if changes[name] is None:
            del found[name]
    return {"timestamp": 1, "execution": found}


class Replies(unittest.TestCase):
    def test_an_execution_is_read_whole(self):
        found = protocol.execution(data())
        self.assertEqual((found["jobId"], found["executionNumber"]), ("j-1", 1))
        self.assertEqual(found["jobDocument"], {"operation": "reboot"})

    def test_an_execution_that_is_not_in_progress_is_none_of_ours(self):
        for status in ("QUEUED", "SUCCEEDED", "CANCELED"):
            self.assertIsNone(protocol.execution(data(status=status)))

    def test_nothing_pending_is_none(self):
        self.assertIsNone(protocol.execution({"timestamp": 1}))
        self.assertIsNone(protocol.execution({"timestamp": 1, "execution": {}}))

    def test_a_malformed_member_is_named(self):
        for name, value in (
            ("jobId", None),
            ("jobId", 7),
            ("jobId", "a/b"),
            ("jobId", "x" * 65),
            ("status", None),
            ("status", 1),
            ("executionNumber", None),
            ("executionNumber", "1"),
            ("executionNumber", True),
        ):
            with self.assertRaises(ProtocolError) as caught:
                protocol.execution(data(**{name: value}))
            self.assertIn(name, str(caught.exception))

    def test_an_execution_that_is_no_object_is_a_protocol_error(self):
        with self.assertRaises(ProtocolError):
            protocol.execution({"execution": [1]})

    def test_the_document_is_left_to_the_document_check(self):
        self.assertEqual(protocol.execution(data(jobDocument=[1]))["jobDocument"], [1])


class Requests(unittest.TestCase):
    def test_an_update_names_the_execution_and_never_expects_a_version(self):
        body = protocol.update("FAILED", {"reason": "no"}, 3)
        self.assertEqual(body, {"status": "FAILED", "executionNumber": 3, "statusDetails": {"reason": "no"}})

    def test_an_update_without_details_leaves_those_of_the_service(self):
        for details in (None, {}, {"percent": None}):
            self.assertNotIn("statusDetails", protocol.update("SUCCEEDED", details, 1))

    def test_an_update_restarts_the_step_timer_if_there_is_one(self):
        self.assertEqual(protocol.update("IN_PROGRESS", None, 1, 5)["stepTimeoutInMinutes"], 5)
        self.assertEqual(protocol.update("IN_PROGRESS", None, 1, -1)["stepTimeoutInMinutes"], -1)
        self.assertNotIn("stepTimeoutInMinutes", protocol.update("IN_PROGRESS", None, 1))


class Refusals(unittest.TestCase):
    def test_codes_that_end_the_execution_for_us(self):
        self.assertEqual(sorted(protocol.OVER), ["InvalidStateTransition", "ResourceNotFound", "TerminalStateReached"])

    def test_throttling_internal_errors_and_a_writer_that_came_between_pass_by_themselves(self):
        self.assertEqual(sorted(protocol.PASSING), ["InternalError", "RequestThrottled", "VersionMismatch"])


class Details(unittest.TestCase):
    def test_numbers_and_booleans_become_text(self):
        cleaned = protocol.clean_details({"a": 1, "b": 1.5, "c": True, "d": False})
        self.assertEqual(cleaned, {"a": "1", "b": "1.5", "c": "true", "d": "false"})

    def test_none_and_empty_text_are_left_out(self):
        self.assertEqual(protocol.clean_details({"a": None, "b": "", "c": "x"}), {"c": "x"})

    def test_control_characters_become_spaces(self):
        self.assertEqual(protocol.clean_details({"a": "x\ny\x00\x7f\x9fz"}), {"a": "x y   z"})

    def test_other_languages_stay(self):
        self.assertEqual(protocol.clean_details({"a": "Öl 90 °C 油"}), {"a": "Öl 90 °C 油"})

    def test_long_values_keep_their_start(self):
        self.assertEqual(len(protocol.clean_details({"a": "x" * 5000})["a"]), 1024)

    def test_keys_get_only_the_characters_they_may_have(self):
        self.assertEqual(list(protocol.clean_details({"a b/c.d:e_f-g": 1})), ["a_b_c_d:e_f-g"])

    def test_the_reason_is_never_the_eleventh(self):
        details = {"k%d" % n: n for n in range(30)}
        details["reason"] = "no oil"
        self.assertEqual(protocol.clean_details(details)["reason"], "no oil")
        self.assertEqual(len(protocol.clean_details(details)), 10)

    def test_an_empty_key_gets_a_name(self):
        self.assertEqual(protocol.clean_details({"": 1}), {"_": "1"})

    def test_at_most_ten_pairs(self):
        self.assertEqual(len(protocol.clean_details({"k%d" % n: n for n in range(30)})), 10)


if __name__ == "__main__":
    unittest.main()
