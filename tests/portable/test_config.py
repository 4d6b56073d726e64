# SPDX-License-Identifier: Apache-2.0
import unittest

from edgeagent import config
from edgeagent.errors import ConfigError

CLAIM = {"certificate": "c.der", "key": "/k.der", "template": "t", "parameters": {"SerialNumber": "1"}}


def document(**members):
    found = {"endpoint": "host", "ca": "certs/ca.der", "claim": dict(CLAIM)}
    found.update(members)
    return found


class Accepted(unittest.TestCase):
    def test_defaults(self):
        made = config.parse(document())
        self.assertEqual((made.port, made.keepalive, made.confirm_within), (8883, 60, 120))
        self.assertEqual(made.server_hostname, "host")
        self.assertEqual(made.application, "app")
        self.assertIsNone(made.trust)

    def test_relative_paths_start_at_the_folder_of_the_file(self):
        made = config.parse(document(state_dir="state"), "/etc/edge")
        self.assertEqual(made.ca, "/etc/edge/certs/ca.der")
        self.assertEqual(made.state_dir, "/etc/edge/state")
        self.assertEqual(made.claim["certificate"], "/etc/edge/c.der")
        self.assertEqual(made.claim["key"], "/k.der")

    def test_an_identity_of_its_own_needs_no_claim(self):
        made = config.parse({"endpoint": "h", "ca": "ca", "thing_name": "t", "certificate": "c", "key": "k"})
        self.assertIsNone(made.claim)

    def test_attributes_may_be_text_numbers_and_booleans(self):
        given = {"site": "x", "n": 1, "f": 1.5, "b": True}
        self.assertEqual(config.parse(document(attributes=given)).attributes, given)


class Refused(unittest.TestCase):
    def refused(self, data):
        with self.assertRaises(ConfigError) as caught:
            config.parse(data)
        return caught.exception.code

    def test_each_problem_names_its_member(self):
        without = document()
        del without["endpoint"]
        for data, field in (
            (without, "agent.json: endpoint"),
            (document(endpoint=""), "agent.json: endpoint"),
            (document(endpoint="x" * 513), "agent.json: endpoint"),
            (document(port=0), "agent.json: port"),
            (document(port="8883"), "agent.json: port"),
            (document(port=True), "agent.json: port"),
            (document(keepalive=29), "agent.json: keepalive"),
            (document(confirm_within=3601), "agent.json: confirm_within"),
            (document(log_level="loud"), "agent.json: log_level"),
            (document(attributes=[]), "agent.json: attributes"),
            (document(attributes={"a": None}), "agent.json: attributes.a"),
            (document(claim=None), "agent.json: claim"),
            (document(claim="x"), "agent.json: claim"),
            (document(claim={}), "agent.json: claim: certificate"),
            (document(claim=dict(CLAIM, parameters={"a": 1})), "agent.json: claim: parameters.a"),
            (document(claim=dict(CLAIM, csr="yes")), "agent.json: claim: csr"),
            ([], "agent.json"),
        ):
            with self.subTest(field=field):
                self.assertEqual(self.refused(data), field)

    def test_a_missing_file_is_named(self):
        with self.assertRaises(ConfigError) as caught:
            config.load("nowhere.json")
        self.assertEqual(caught.exception.code, "nowhere.json")


if __name__ == "__main__":
    unittest.main()
