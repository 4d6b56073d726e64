# SPDX-License-Identifier: Apache-2.0
"""The attacks of test_attacks.py on the bytes themselves, by an HTTPS server: the same codes from the real handler.

Source: Uptane Standard 2.1.0 section 4 (threat model); the codes are those of docs/ota.md.
"""

import asyncio
import unittest

from edgeagent.jobs import ota
from edgeagent.ota import ranges
from tests.portable import test_attacks, test_ranges
from tests.portable.ota_support import BLOCK, Artifact, pattern, slot_contents
from tests.portable.test_ota_handler import FILES

OTHER = [("app.py", b"VERSION = 3"), ("data.bin", pattern(12 * BLOCK, 9))]


class Objects:
    """One server of test_ranges for each part, told apart by the path."""

    def __init__(self, parts):
        self.parts = [test_ranges.Server(part) for part in parts]
        self.asked = []  # which part, in order

    async def open_stream(self, *arguments):
        stream = Stream(self)
        return stream, stream


class Stream(test_ranges.Stream):
    """Goes to the server of the path that is asked for."""

    def __init__(self, objects):
        super().__init__(objects.parts[0])
        self.objects = objects

    def write(self, data):
        super().write(data)
        number = int(self.request.split(b" ")[1][1:])
        self.objects.asked.append(number)
        self.server = self.objects.parts[number]


class Case(test_attacks.Case):
    def setUp(self):
        super().setUp()
        self.unpaused = asyncio.sleep

        async def sleep(seconds):
            await self.unpaused(0)

        ranges.asyncio.sleep = sleep

    def tearDown(self):
        ranges.asyncio.sleep = self.unpaused
        super().tearDown()

    def serve(self, *parts):
        super().serve(*parts)
        del self.document["stream"]
        self.document["urls"] = {name: "https://objects.example/%d" % number for number, name in enumerate(ota.PARTS)}
        self.objects = Objects(parts)
        self.service.requests = []
        agent = self.agent
        agent.open_stream = self.objects.open_stream
        agent.connected = asyncio.Event()
        agent.connected.set()
        agent.config.ca, agent.config.https_ca, agent.pause = "ca.der", None, 0
        agent.state_dir = self.root

        async def close():
            pass

        self.service.close = close
        self.payload = self.objects.parts[2]

    def stopped(self, code, **case):
        return super().stopped(code, written=2 in self.objects.asked, **case)


class WrongContent(Case):
    def test_honest_server(self):
        self.serve(*self.artifact.parts())
        self.reset(document=self.document)
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))
        self.assertEqual(self.objects.asked, [0, 1, 2])

    def test_artifact_of_a_stranger(self):
        self.serve(*Artifact(FILES).seal((test_attacks.STOLEN,)).parts())
        self.stopped("signature")
        self.assertEqual(self.objects.asked, [0])

    def test_a_page_instead_of_the_envelope(self):
        self.serve(b"<html>" + bytes(len(self.artifact.envelope) - 6), *self.artifact.parts()[1:])
        self.stopped("envelope")
        self.assertEqual(self.objects.asked, [0])

    def test_a_page_instead_of_the_payload(self):
        self.serve(*self.artifact.parts())
        self.payload.data = b"<html>" + bytes(len(self.payload.data) - 6)
        self.assertIn("block 0", self.stopped("block-hash"))

    def test_one_wrong_bit(self):
        self.serve(*self.artifact.parts())
        data = bytearray(self.payload.data)
        data[7 * BLOCK + 5] ^= 1
        self.payload.data = bytes(data)
        self.assertIn("block 7", self.stopped("block-hash"))

    def test_another_range_than_asked_for(self):
        self.serve(*self.artifact.parts())
        self.payload.change = lambda head: head.replace("bytes 0-", "bytes 4096-")
        self.stopped("transfer")


class MixedBundle(Case):
    def test_hash_list_and_payload_of_another_signed_release(self):
        other = Artifact(OTHER, version="3.0.0")
        self.serve(self.artifact.envelope, other.blocks, other.payload)
        self.stopped("bundle")
        self.assertNotIn(2, self.objects.asked)

    def test_payload_of_another_signed_release(self):
        other = Artifact(OTHER, version="3.0.0")
        self.serve(self.artifact.envelope, self.artifact.blocks, other.payload)
        self.assertIn("block 0", self.stopped("block-hash"))

    def test_payload_that_is_replaced_between_two_requests(self):
        saved, ranges.PART = ranges.PART, 4
        try:
            self.serve(*self.artifact.parts())

            def replace(head):
                self.payload.etag = '"Tag-2"'
                return head

            self.payload.change = replace
            self.assertIn("changed", self.stopped("transfer"))
        finally:
            ranges.PART = saved


class EndlessData(Case):
    def test_payload_without_end(self):
        self.serve(*self.artifact.parts())
        self.payload.ranges = False
        self.payload.change = lambda head: head.replace("Length: ", "Length: 99999")
        self.stopped("size")
        self.assertTrue(self.payload.sent <= 2048)

    def test_envelope_without_end(self):
        self.serve(*self.artifact.parts())
        server = self.objects.parts[0]
        server.ranges = False
        server.change = lambda head: head.replace("Length: ", "Length: 99999")
        self.stopped("size")
        self.assertTrue(server.sent <= 2048)

    def test_what_comes_behind_the_payload_is_not_read(self):
        self.serve(*self.artifact.parts())
        self.payload.ranges = False
        size = len(self.payload.data)
        self.payload.data += bytes(40 * BLOCK)
        self.reset(document=self.document)
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))
        self.assertTrue(self.payload.sent < size + 4096)

    def test_head_without_end(self):
        self.serve(*self.artifact.parts())
        self.payload.change = lambda head: head + "X: " + "a" * 5000
        self.stopped("transfer")
        self.assertTrue(self.payload.sent < 7 * 6000)


class SlowRetrieval(Case):
    def test_server_that_drops_every_request(self):
        self.serve(*self.artifact.parts())
        self.payload.answers = [b""] * 20
        self.stopped("transfer")
        self.assertEqual(self.objects.asked.count(2), 7)

    def test_body_that_trickles(self):
        self.serve(*self.artifact.parts())
        self.payload.piece = 1

        def slowly(head):
            self.payload.pause_ms = 18000
            return head

        self.payload.change = slowly
        saved, ranges.clock = ranges.clock, self.payload
        try:
            self.assertIn("too slow", self.stopped("transfer"))
        finally:
            ranges.clock = saved


if __name__ == "__main__":
    unittest.main()
