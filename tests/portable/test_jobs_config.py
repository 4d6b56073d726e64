# SPDX-License-Identifier: Apache-2.0
"""The config job: what it merges, removes and refuses, in the file and in the running agent."""

import asyncio
import json
import os
import unittest

from edgeagent import compat, config, log
from edgeagent.agent import Agent
from edgeagent.errors import AgentError
from edgeagent.jobs.config import run

_FOLDER = "config-test-" + os.urandom(6).hex()
_PATH = _FOLDER + "/agent.json"
_BASE = {"endpoint": "e", "ca": "ca", "thing_name": "t", "certificate": "c", "key": "k"}


class Port:
    state_dir = slots_dir = _FOLDER

    def facts(self):
        return {"board": "TEST"}


class Changing(unittest.TestCase):
    def setUp(self):
        compat.remove_tree(_FOLDER)
        compat.make_dirs(_FOLDER)
        log.configure(log.INFO, lambda line: None)

    def tearDown(self):
        log.configure(log.INFO, print)
        compat.remove_tree(_FOLDER)

    def agent(self, **members):
        data = dict(_BASE)
        data.update(members)
        compat.write_atomic(_PATH, json.dumps(data).encode())
        return Agent(config.load(_PATH), Port(), "1", _PATH)

    def change(self, agent, **document):
        class Job:
            pass

        job = Job()
        job.agent = agent
        job.document = document
        return asyncio.run(run(job))

    def written(self):
        with open(_PATH) as file:
            return json.loads(file.read())

    def test_attributes_are_merged_and_other_members_replaced(self):
        agent = self.agent(attributes={"site": "berlin", "line": 1}, keepalive=60)
        result = self.change(agent, config={"keepalive": 90, "attributes": {"line": 2, "hall": "A"}})
        self.assertEqual(result, {"changed": "attributes, keepalive"})
        self.assertEqual(self.written()["attributes"], {"site": "berlin", "line": 2, "hall": "A"})
        self.assertEqual((self.written()["keepalive"], agent.config.keepalive), (90, 90))
        self.assertEqual(agent.attributes.full()["line"], 2)

    def test_a_removed_attribute_leaves_the_file_and_is_reported_as_null(self):
        agent = self.agent(attributes={"site": "berlin", "line": 1})
        result = self.change(agent, remove=["attributes.line"])
        self.assertEqual(result, {"changed": "attributes.line"})
        self.assertEqual(self.written()["attributes"], {"site": "berlin"})
        self.assertIsNone(agent.attributes.full()["line"])

    def test_a_removed_attribute_that_hid_a_fact_shows_the_fact_again(self):
        agent = self.agent(attributes={"board": "MINE"})
        self.change(agent, remove=["attributes.board"])
        self.assertEqual(agent.attributes.full()["board"], "TEST")

    def test_an_attribute_that_the_application_has_taken_over_stays_its_own(self):
        agent = self.agent(attributes={"line": 1})
        agent.attribute("line", lambda: 7)
        self.change(agent, remove=["attributes.line"])
        self.assertEqual(agent.attributes.full()["line"], 7)

    def test_a_removed_member_gets_its_default(self):
        agent = self.agent(keepalive=90, confirm_within=300, log_level="error", attributes={"hin": 1})
        self.change(agent, remove=["keepalive", "log_level", "confirm_within"])
        self.assertEqual((agent.config.keepalive, agent.config.log_level), (60, log.INFO))
        self.assertNotIn("keepalive", self.written())
        self.assertEqual(self.written()["attributes"], {"hin": 1})

    def test_all_attributes_can_be_removed_at_once(self):
        agent = self.agent(attributes={"site": "berlin", "line": 1})
        self.change(agent, remove=["attributes"])
        self.assertNotIn("attributes", self.written())
        self.assertIsNone(agent.attributes.full()["site"])

    def test_the_same_change_again_is_no_change(self):
        agent = self.agent(attributes={"line": 1})
        for _ in range(2):
            self.change(agent, config={"attributes": {"hall": "A"}}, remove=["attributes.line", "keepalive"])
            self.assertEqual(self.written()["attributes"], {"hall": "A"})

    def test_an_agent_without_a_file_says_so(self):
        agent = self.agent()
        agent.config_path = None
        with self.assertRaises(AgentError) as caught:
            self.change(agent, config={"keepalive": 90})
        self.assertIn("file", str(caught.exception))

    def test_what_may_not_be_changed_or_is_wrong_is_named_and_nothing_is_written(self):
        agent = self.agent(attributes={"line": 1})
        before = self.written()
        for document, named in (
            ({"config": {"endpoint": "evil"}}, "endpoint"),
            ({"config": {"handlers": {}}}, "handlers"),
            ({"config": {"attributes.line": 2}}, "attributes.line"),
            ({"config": {"attributes": 7}}, "attributes"),
            ({"config": {"attributes": {"a": {"b": 1}}}}, "attributes.a"),
            ({"config": {"attributes": {"a b": 1}}}, "a b"),
            ({"config": {"keepalive": 5}}, "keepalive"),
            ({"config": {"attributes": {"a": "x" * 5000}}}, "4096"),
            ({"config": {"attributes": {"a": "x" * 9000}}}, "8192"),
            ({"remove": ["endpoint"]}, "endpoint"),
            ({"remove": ["trust", "keepalive"]}, "trust"),
            ({"remove": [7]}, "7"),
            ({"remove": [["keepalive"]]}, "keepalive"),
            ({"remove": "keepalive"}, "remove"),
            ({"config": [1]}, "config"),
            ({"config": {}}, "config"),
            ({}, "config"),
        ):
            with self.assertRaises(AgentError) as caught:
                self.change(agent, **document)
            self.assertIn(named, str(caught.exception))
            self.assertEqual(self.written(), before)


if __name__ == "__main__":
    unittest.main()
