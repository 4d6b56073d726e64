# SPDX-License-Identifier: Apache-2.0
"""Diagnostics bundles: what is in them, whatever collectors do; parts, tree hash, and resets at every moment."""

import asyncio
import binascii
import hashlib
import json
import unittest

from edgeagent import compat, log, upload
from edgeagent.errors import TransportError
from edgeagent.jobs import diagnostics
from edgeagent.ota import trial
from tests.portable.job_service import (
    FOLDER,
    Device,
    Fuse,
    Port,
    PowerCut,
    Quick,
    Service,
    journal_is_empty,
    live,
)

SPOOL = FOLDER + "/upload"
BUILT_IN = ["time", "facts", "memory", "boot", "counters", "attributes", "slots", "crash", "log", "end"]


def tree_hash(parts):
    """Level by level, as Amazon S3 Glacier's documentation tells it."""
    level = [hashlib.sha256(part).digest() for part in parts]
    while len(level) > 1:
        above = []
        for i in range(0, len(level), 2):
            pair = level[i : i + 2]
            above.append(hashlib.sha256(pair[0] + pair[1]).digest() if len(pair) == 2 else pair[0])
        level = above
    return binascii.hexlify(level[0]).decode()


def objects(published):
    """The objects that a receiver has after these messages, by name."""
    open_ = {}
    whole = {}
    for topic, payload in published:
        name, number, count = topic.split("/")[4:]
        part = open_.setdefault(name, {})
        part[int(number)] = payload
        if len(part) == int(count):
            whole[name] = b"".join([part[n] for n in range(len(part))])
            open_.pop(name)
    return whole


class World(Quick):
    def setUp(self):
        super().setUp()
        self.published = []
        self.boots = 0
        self.collectors = []
        self.part = upload.PART

    def tearDown(self):
        upload.PART = diagnostics.PART = self.part
        super().tearDown()

    def small_parts(self, size=8192):
        upload.PART = diagnostics.PART = size

    def device(self):
        self.boots += 1
        device = Device(self.service, self.boots)
        device.published = self.published
        device.collectors = self.collectors
        return device

    def start(self, **members):
        members["operation"] = "diagnostics"
        self.service.add("j", members)

    def collect(self, **members):
        """Run the job on one boot; the lines of its bundle."""
        self.start(**members)
        live(self.device(), lambda d: d.idle())
        self.assertEqual(self.service.status("j"), "SUCCEEDED", self.service.details("j"))
        return self.lines()

    def bundle(self):
        """The bytes of the bundle, which are those that the job's details tell of."""
        details = self.service.details("j")
        found = objects(self.published)
        names = [details["bundle"]]
        for n in range(1, int(details["parts"])):
            names.append("%s.%d" % (names[0], n))
        parts = [found[name] for name in names]
        whole = b"".join(parts)
        self.assertEqual(len(whole), int(details["bytes"]))
        self.assertEqual(tree_hash(parts), details["sha256"])
        for part in parts[:-1]:
            self.assertEqual(len(part), upload.PART)
        return whole

    def lines(self):
        return [json.loads(line) for line in self.bundle().split(b"\n")[:-1]]

    def values(self, lines, name):
        return [line[name] for line in lines if line["section"] == name and name in line]

    def error(self, lines, name):
        (found,) = [line["error"] for line in lines if line["section"] == name and "error" in line]
        return found


class Content(World):
    def test_a_bundle_arrives_whole_in_small_messages(self):
        for n in range(60):
            log.info("test", "line %d %s", n, "x" * 140)
        lines = self.collect()
        self.assertTrue(len(self.published) > 1)
        self.assertTrue(max([len(payload) for _, payload in self.published]) <= 4096)
        names = []
        for line in lines:
            if line["section"] not in names:
                names.append(line["section"])
        self.assertEqual(names, BUILT_IN)
        self.assertEqual(self.values(lines, "attributes"), [{"engineStarts": 7}])
        self.assertEqual(len(self.values(lines, "log")), len(log.recent[:40]))

    def test_only_the_sections_asked_for_are_in_it(self):
        self.collectors.append(("engine", lambda: 1))
        self.collectors.append(("pump", lambda: 2))
        lines = self.collect(sections=["memory", "pump"])
        self.assertEqual([line["section"] for line in lines], ["memory", "pump", "end"])

    def test_a_section_that_the_device_does_not_know_is_noted(self):
        self.assertIn("there is none", self.error(self.collect(sections=["gearbox"]), "gearbox"))

    def test_the_slots_and_the_latest_boots_are_told(self):
        compat.make_dirs(FOLDER + "/slots")
        trial.write_sealed(FOLDER + "/slots/state.json", {"state": "confirmed"})
        with open(FOLDER + "/slots/crash.json", "w") as f:
            f.write("12345678{")
        with open(FOLDER + "/boots", "w") as f:
            f.write("3 watchdog power-on")
        lines = self.collect(sections=["slots", "crash", "boot"])
        self.assertEqual(self.values(lines, "slots"), [{"state": "confirmed"}])
        self.assertEqual(self.values(lines, "crash"), ["damaged"])
        self.assertEqual(self.values(lines, "boot")[0]["history"], "3 watchdog power-on")

    def test_a_second_execution_does_not_replace_the_bundle_of_the_first(self):
        self.service.add("j", {"operation": "diagnostics"}, 2)
        live(self.device(), lambda d: d.idle())
        self.assertEqual(self.service.details("j")["bundle"], "j-2")

    def test_wrong_members_of_the_document_are_rejected_by_name(self):
        cases = (
            ({"limit": "1"}, "limit"),
            ({"limit": 100}, "limit"),
            ({"sections": "log"}, "sections"),
            ({"urls": []}, "urls"),
            ({"urls": "x"}, "urls"),
        )
        for members, word in cases:
            self.service = Service()
            self.start(**members)
            live(self.device(), lambda d: d.idle())
            self.assertEqual(self.service.status("j"), "REJECTED", members)
            self.assertIn(word, self.service.details("j")["reason"])
        self.assertEqual(self.published, [])


class Collectors(World):
    def gather(self, function, **members):
        self.collectors.append(("mine", function))
        members.setdefault("sections", ["mine"])
        return self.collect(**members)

    def test_a_function_gives_one_value(self):
        self.assertEqual(self.values(self.gather(lambda: {"rpm": 700}), "mine"), [{"rpm": 700}])

    def test_a_list_is_several(self):
        self.assertEqual(self.values(self.gather(lambda: [1, None, "a"]), "mine"), [1, None, "a"])

    def test_an_async_function_is_awaited(self):
        async def mine():
            await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            return {"rpm": 700}

        self.assertEqual(self.values(self.gather(mine), "mine"), [{"rpm": 700}])

    def test_a_generator_gives_chunk_after_chunk(self):
        def mine():
            for n in range(3):
                yield {"n": n}

        self.assertEqual(self.values(self.gather(mine), "mine"), [{"n": 0}, {"n": 1}, {"n": 2}])

    def test_a_bound_method_is_as_good(self):
        class Engine:
            def state(self):
                return 5

        self.assertEqual(self.values(self.gather(Engine().state), "mine"), [5])

    def test_long_text_and_bytes_are_cut_into_lines(self):
        text = "ab\xe4\n" * 1000
        self.assertEqual("".join(self.values(self.gather(lambda: text), "mine")), text)

    def test_bytes_come_as_base64(self):
        data = bytes(range(256)) * 10
        lines = self.gather(lambda: data)
        self.assertEqual(b"".join([binascii.a2b_base64(line["base64"]) for line in lines[:-1]]), data)

    def test_what_fails_is_noted_and_the_others_go_on(self):
        def first():
            raise ValueError("sensor off")

        def second():
            yield 1
            raise OSError(5)

        async def third():
            raise RuntimeError("third")

        for name, function in (("first", first), ("second", second), ("third", third), ("last", lambda: 1)):
            self.collectors.append((name, function))
        lines = self.collect()
        self.assertEqual(self.error(lines, "first"), "ValueError: sensor off")
        self.assertIn("OSError", self.error(lines, "second"))
        self.assertEqual(self.values(lines, "second"), [1])
        self.assertIn("third", self.error(lines, "third"))
        self.assertEqual(self.values(lines, "last"), [1])

    def test_one_that_never_answers_is_given_up(self):
        async def mine():
            await asyncio.Event().wait()

        wait_for = diagnostics.wait_for
        diagnostics.wait_for = lambda awaitable, seconds: wait_for(awaitable, 0.01)
        try:
            self.assertIn("no chunk within", self.error(self.gather(mine), "mine"))
        finally:
            diagnostics.wait_for = wait_for

    def test_an_endless_one_is_cut_at_the_limit_and_leaves_room_for_the_others(self):
        closed = []

        def endless():
            try:
                while True:
                    yield "x" * 500
            finally:
                closed.append(True)

        self.collectors.append(("endless", endless))
        lines = self.gather(endless, limit=20000, sections=["endless", "mine"])
        self.assertTrue(len(self.bundle()) <= 20000)
        self.assertTrue(len(self.bundle()) > 15000)
        for name in ("endless", "mine"):
            self.assertIn("no room", self.error(lines, name))
            self.assertTrue(len(self.values(lines, name)) > 5)
        self.assertEqual(closed, [True, True])

    def test_without_room_on_flash_for_a_part_the_bundle_is_smaller(self):
        memory = Port.memory
        Port.memory = lambda self: {"flash_free": 65536 + 10000}
        try:
            self.gather(lambda: ["x" * 500] * 100)
        finally:
            Port.memory = memory
        self.assertTrue(5000 < len(self.bundle()) <= 10000)


def numbers():
    for n in range(400):
        yield "%04d" % n * 20


class Resets(World):
    """400 lines of the same content at each run, in parts of 8 KB."""

    def setUp(self):
        World.setUp(self)
        self.small_parts()
        self.collectors.append(("numbers", numbers))

    def check(self, boots):
        lines = self.lines()
        self.assertTrue(self.values(lines, "numbers") == list(numbers()))
        self.assertEqual(lines[-1], {"section": "end", "resets": boots - 1})
        self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])
        self.assertFalse(compat.exists(SPOOL))
        self.assertTrue(journal_is_empty())

    def run_with_cuts(self, cut):
        """Boot until the job is over; cut(device) prepares each boot."""
        self.start(limit=100000, sections=["numbers"])
        for boot in range(1, 12):
            device = self.device()
            cut(device, boot)
            if not live(device, lambda d: d.idle()):
                return boot
        raise AssertionError("never over: %s" % self.service.history)

    def test_a_bundle_of_many_parts_has_the_tree_hash_of_its_parts(self):
        boots = self.run_with_cuts(lambda device, boot: None)
        self.assertTrue(int(self.service.details("j")["parts"]) > 4)
        self.check(boots)

    def messages(self):
        """How many messages an upload without a reset takes."""
        self.run_with_cuts(lambda device, boot: None)
        count = len(self.published)
        del self.published[:]
        self.service = Service()
        return count

    def cut_at(self, at):
        """Lose power at the message of that number, in the first boot."""

        def cut(device, boot):
            publish = device.publish

            async def guarded(topic, payload, qos=1):
                if boot == 1 and len(self.published) == at:
                    raise PowerCut("cut")
                await publish(topic, payload, qos)

            device.publish = guarded

        return cut

    def test_a_reset_at_any_message_continues_with_the_part_it_hit(self):
        for at in range(0, self.messages(), 3):
            self.service = Service()
            del self.published[:]

            self.assertEqual(self.run_with_cuts(self.cut_at(at)), 2)
            self.check(2)
            topics = [topic for topic, _ in self.published]
            again = [topic for topic in topics if topics.count(topic) > 1]
            self.assertTrue(len({topic.split("/")[4] for topic in again}) <= 1, again)

    def test_a_power_cut_at_any_write_of_the_journal_continues(self):
        for at in range(1, 60, 2):
            mode = ("before", "torn", "after")[at // 2 % 3]
            self.service = Service()
            del self.published[:]
            self.start(limit=100000, sections=["numbers"])
            with Fuse(at, mode):
                cut = live(self.device(), lambda d: d.idle())
            if not cut:
                self.assertTrue(at > 20)
                return
            self.assertFalse(live(self.device(), lambda d: d.idle()))
            self.assertEqual(self.service.terminal("j"), ["SUCCEEDED"])
            self.assertTrue(self.values(self.lines(), "numbers") == list(numbers()))

    def test_a_collector_in_which_the_device_is_reset_every_time_is_left_out(self):
        def deadly():
            raise PowerCut("watchdog")

        self.collectors[0] = ("numbers", deadly)
        self.collectors.append(("after", lambda: 1))
        self.start()
        boots = 1
        while live(self.device(), lambda d: d.idle()):
            boots += 1
        self.assertEqual(boots, 4)
        lines = self.lines()
        self.assertIn("reset in it 3 times", self.error(lines, "numbers"))
        self.assertEqual(self.values(lines, "after"), [1])


class Link(World):
    def test_a_lost_message_is_sent_again(self):
        device = self.device()
        publish = device.publish
        failures = [1, 1, 1]

        async def flaky(topic, payload, qos=1):
            if failures:
                failures.pop()
                raise TransportError("no answer")
            await publish(topic, payload, qos)

        device.publish = flaky
        self.start()
        live(device, lambda d: d.idle())
        self.assertEqual(self.service.status("j"), "SUCCEEDED")
        self.lines()

    def test_a_link_that_never_takes_it_ends_in_failed_with_the_reason(self):
        device = self.device()

        async def dead(topic, payload, qos=1):
            raise TransportError("closed by the server")

        device.publish = dead
        self.start()
        live(device, lambda d: d.idle())
        self.assertEqual(self.service.status("j"), "FAILED")
        self.assertEqual(self.service.details("j")["reason"], "part 0: closed by the server")
        self.assertFalse(compat.exists(SPOOL))

    def test_without_a_link_it_waits(self):
        device = self.device()
        self.collectors.append(("off", lambda: device.connected.clear()))
        self.start()

        async def scenario(d):
            await d.until(lambda: compat.exists(SPOOL))
            await asyncio.sleep(0.05)
            self.assertEqual(self.service.status("j"), "IN_PROGRESS")
            d.connected.set()
            await d.idle()

        live(device, scenario)
        self.assertEqual(self.service.status("j"), "SUCCEEDED")

    def test_a_cancelled_job_stops_and_leaves_nothing(self):
        self.small_parts()
        device = self.device()
        publish = device.publish

        async def cancelling(topic, payload, qos=1):
            await publish(topic, payload, qos)
            if len(self.published) == 3:
                self.service.cancel("j")

        device.publish = cancelling
        self.collectors.append(("numbers", numbers))
        self.start(limit=100000)
        live(device, lambda d: d.idle())
        self.assertEqual(self.service.terminal("j"), [])
        self.assertTrue(len(self.published) < 6)
        self.assertFalse(compat.exists(SPOOL))


if __name__ == "__main__":
    unittest.main()
