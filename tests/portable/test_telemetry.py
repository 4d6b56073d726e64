# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC110 - a condition is awaited turn by turn of the loop: the same on both runtimes
"""Series, windows and messages of the telemetry, on the real outbox; the link is played by the test."""

import asyncio
import json
import unittest

from edgeagent import compat, log
from edgeagent.errors import ConfigError, TransportError
from edgeagent.telemetry import Part, check
from tests.portable.wire import play

FOLDER = "telemetry-test"


class Config:
    telemetry = None


class Port:
    state_dir = FOLDER
    resets = 0

    def reset(self):
        self.resets += 1


class Client:
    """Acknowledges, or loses the link."""

    def __init__(self):
        self.sent = []
        self.down = 0
        self.flying = 0
        self.most = 0

    async def publish(self, topic, payload, qos=1):
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(0)
        self.flying -= 1
        if self.down:
            self.down -= 1
            raise TransportError("down")
        self.sent.append((topic, bytes(payload)))


class Agent:
    thing_name = "pump"

    def __init__(self, telemetry=None):
        self.config = Config()
        self.config.telemetry = telemetry
        self.port = Port()
        self.services = []
        self.client = Client()
        self.connected = asyncio.Event()


class Case(unittest.TestCase):
    def setUp(self):
        self.sink = log._sink
        log._sink = lambda line: None
        compat.remove_tree(FOLDER)

    def tearDown(self):
        log._sink = self.sink
        compat.remove_tree(FOLDER)

    def stored(self, part):
        """[(name, value)] of what is in the outbox."""
        taken = part.box.take(100000)
        if not taken:
            return []
        part.box.ack(taken[0] + taken[1])
        return [(row[1], row[2]) for row in json.loads(b"[" + taken[2] + b"]")]

    def over(self, series):
        """Let the window of a series be over."""
        series.since -= series.every


class Samples(Case):
    def test_a_sample_is_a_record_of_time_name_and_value(self):
        part = Part(Agent())
        for value in (21.5, 7, "text", True):
            self.assertTrue(part.record("t", value))
        self.assertEqual(self.stored(part), [("t", 21.5), ("t", 7), ("t", "text"), ("t", True)])

    def test_what_json_cannot_say_or_is_too_long_is_refused_and_nothing_is_raised(self):
        part = Part(Agent())
        for value in (None, b"x", [1], {}, object(), float("nan"), float("inf"), "x" * 600):
            self.assertFalse(part.record("t", value))
        self.assertEqual(self.stored(part), [])

    def test_in_immediate_mode_a_record_is_durable_at_once(self):
        part = Part(Agent({"flush": 0}))
        self.assertTrue(part.record("t", 1))
        self.assertEqual(self.stored(Part(Agent())), [("t", 1)])

    def test_a_planned_restart_keeps_what_was_not_flushed(self):
        agent = Agent()
        part = Part(agent)
        part.series("w", every=60, aggregate="sum")
        part.record("t", 1)
        part.record("w", 2)
        agent.port.reset()
        self.assertEqual(agent.port.resets, 1)
        self.assertEqual(self.stored(Part(Agent())), [("t", 1), ("w", 2)])


class Series(Case):
    def test_a_window_gives_one_record(self):
        for aggregate, value in (("mean", 2.5), ("min", 1), ("max", 4), ("sum", 10), ("count", 4), ("last", 3)):
            part = Part(Agent())
            part.series("t", every=60, aggregate=aggregate)
            for sample in (1, 2, 4, 3):
                self.assertTrue(part.record("t", sample))
            self.assertEqual(part.box.records, 0)
            self.over(part._series["t"])
            part.tick()
            self.assertEqual(self.stored(part), [("t", value)])
            part.tick()
            self.assertEqual(self.stored(part), [])

    def test_a_sample_after_the_window_opens_the_next(self):
        part = Part(Agent())
        part.series("t", every=60, aggregate="sum")
        part.record("t", 1)
        part.record("t", 2)
        self.over(part._series["t"])
        part.record("t", 10)
        self.assertEqual(self.stored(part), [("t", 3)])
        part.tick(True)
        self.assertEqual(self.stored(part), [("t", 10)])

    def test_several_aggregates_make_an_object(self):
        part = Part(Agent())
        part.series("t", every=60, aggregate=["min", "mean", "max"])
        for sample in (1, 2, 6):
            part.record("t", sample)
        part.tick(True)
        self.assertEqual(self.stored(part), [("t", {"min": 1, "mean": 3, "max": 6})])

    def test_within_the_deadband_nothing_is_stored(self):
        part = Part(Agent())
        part.series("t", deadband=0.5)
        for sample in (20, 20.25, 19.75, 20.5, 20.75, 21):
            self.assertTrue(part.record("t", sample))
        self.assertEqual(self.stored(part), [("t", 20), ("t", 20.5), ("t", 21)])

    def test_a_heartbeat_ends_the_silence_of_a_deadband(self):
        part = Part(Agent())
        part.series("t", deadband=5, heartbeat=60)
        part.record("t", 1)
        part.record("t", 2)
        part._series["t"].sent_at -= 60000
        part.record("t", 3)
        self.assertEqual(self.stored(part), [("t", 1), ("t", 3)])

    def test_text_cannot_be_averaged_but_its_last_can_be_kept(self):
        part = Part(Agent())
        part.series("t", every=60, aggregate="mean")
        part.series("s", every=60)
        self.assertFalse(part.record("t", "x"))
        self.assertTrue(part.record("s", "x"))
        part.tick(True)
        self.assertEqual(self.stored(part), [("s", "x")])

    def test_wrong_declarations_are_refused_by_name(self):
        part = Part(Agent())
        for options in (
            {"aggregate": "median"},
            {"every": -1},
            {"every": 90000},
            {"deadband": -1},
            {"heartbeat": -1},
            {"aggregate": ["min", "max"], "deadband": 1},
        ):
            with self.assertRaises(ConfigError) as caught:
                part.series("flow", **options)
            self.assertIn("flow", str(caught.exception))


class Settings(Case):
    def test_defaults(self):
        found = check({})
        self.assertEqual(found["topic"], "dt/edgeagent/{thing}/telemetry")
        self.assertEqual((found["drop"], found["flush"], found["every"]), ("oldest", 30, 10))

    def test_wrong_members_are_refused_by_name(self):
        for name, value in (
            ("topic", ""),
            ("topic", 1),
            ("topic", "a/+/b"),
            ("topic", "a/#"),
            ("topic", "$aws/things/{thing}/shadow/update"),
            ("message_bytes", 2047),
            ("message_bytes", 16385),
            ("flush", -1),
            ("flush", True),
            ("every", 0),
            ("rate", 51),
            ("max_bytes", 16383),
            ("max_records", "many"),
            ("drop", "some"),
            ("topics", "a"),
        ):
            with self.assertRaises(ConfigError) as caught:
                check({name: value})
            self.assertIn("telemetry." + name, str(caught.exception))
        self.assertRaises(ConfigError, check, [])

    def test_basic_ingest_is_a_good_topic(self):
        self.assertEqual(check({"topic": "$aws/rules/store/{thing}"})["topic"], "$aws/rules/store/{thing}")


class Delivery(Case):
    def delivered(self, agent, part, condition):
        async def main():
            agent.connected.set()
            task = asyncio.create_task(part._deliver())
            try:
                while not condition():
                    await asyncio.sleep(0.01)
            finally:
                task.cancel()

        play(main())
        return [(topic, json.loads(payload)) for topic, payload in agent.client.sent]

    def test_a_message_names_thing_numbering_and_first_record(self):
        agent = Agent({"topic": "site/{thing}/data"})
        part = Part(agent)
        part.record("t", 1.5)
        part.record("u", 2)
        part.box.flush()
        topic, message = self.delivered(agent, part, lambda: not part.box.records)[0]
        self.assertEqual(topic, "site/pump/data")
        self.assertEqual((message["thing"], message["id"], message["seq"]), ("pump", part.box.id, 0))
        self.assertEqual([row[1:] for row in message["records"]], [["t", 1.5], ["u", 2]])
        self.assertEqual(message["dropped"], 0)

    def test_a_backlog_goes_out_in_full_messages_in_order_and_one_at_a_time(self):
        agent = Agent({"rate": 50})
        part = Part(agent)
        for n in range(600):
            part.record("n", n)
        found = self.delivered(agent, part, lambda: part.box.records < 20)
        values = []
        for _, message in found:
            self.assertEqual(message["seq"], len(values))
            values += [row[2] for row in message["records"]]
        self.assertEqual(values, list(range(len(values))))
        self.assertEqual(agent.client.most, 1)
        sizes = [len(payload) for _, payload in agent.client.sent]
        self.assertLessEqual(max(sizes), 2048 + 512)
        self.assertGreater(sizes[0], 1000)

    def test_a_message_that_was_not_acknowledged_is_sent_again_unchanged_in_its_records(self):
        agent = Agent()
        agent.client.down = 1
        part = Part(agent)
        part.record("n", 1)
        part.box.flush()
        found = self.delivered(agent, part, lambda: not part.box.records)
        self.assertEqual([message["seq"] for _, message in found], [0])

    def test_records_in_ram_wait_for_company(self):
        agent = Agent({"every": 3600})
        part = Part(agent)
        part.record("n", 1)

        async def main():
            agent.connected.set()
            task = asyncio.create_task(part._deliver())
            await asyncio.sleep(0.05)
            task.cancel()

        play(main())
        self.assertEqual(agent.client.sent, [])
