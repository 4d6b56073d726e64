# SPDX-License-Identifier: Apache-2.0
"""Blocks over MQTT streams, and verified blocks into files."""

import asyncio
import binascii
import json
import os
import unittest

from edgeagent import compat, log
from edgeagent.errors import Refused, UpdateError
from edgeagent.limits import LIMITS
from edgeagent.ota import transfer
from edgeagent.ota.manifest import parse_manifest
from edgeagent.ota.transfer import Fetcher
from edgeagent.ota.writer import SYNC_BLOCKS, Writer
from tests.portable.ota_support import BLOCK, Artifact, contents, damage, fresh, hexed, pattern, sha
from tests.portable.ota_world import Agent, Service

SIZE = 10 * BLOCK + 100
DATA = pattern(SIZE)


class Case(unittest.TestCase):
    def setUp(self):
        self.saved = LIMITS.REQUEST_S, transfer.Fetcher.POLL_S
        LIMITS.REQUEST_S = 0.05
        transfer.Fetcher.POLL_S = 0.001
        log.configure(100)
        self.service = Service([b"envelope", b"h" * 32, DATA])
        self.agent = Agent(self.service)
        self.got = []

    def tearDown(self):
        LIMITS.REQUEST_S, transfer.Fetcher.POLL_S = self.saved
        log.configure(log.INFO)

    def fetch(self, file=2, size=SIZE, first=0, sink=None, tick=None):
        async def scenario():
            self.service.start()
            fetcher = Fetcher(self.agent, "s1")
            try:
                await fetcher.fetch(file, size, sink or self.take, first, tick)
            finally:
                await fetcher.close()
                self.service.stop()

        asyncio.run(scenario())

    def take(self, number, data):
        self.got.append((number, bytes(data)))

    def whole(self):
        return b"".join([data for _, data in self.got])

    def refused(self, code, **case):
        with self.assertRaises(UpdateError) as caught:
            self.fetch(**case)
        self.assertEqual(caught.exception.code, code)
        return str(caught.exception)


class Fetching(Case):
    def test_blocks_come_in_order_each_once(self):
        self.fetch()
        self.assertEqual([number for number, _ in self.got], list(range(11)))
        self.assertEqual(self.whole(), DATA)

    def test_requests_follow_the_stream_protocol(self):
        self.fetch()
        first = self.service.requests[0]
        self.assertEqual({k: first[k] for k in ("f", "l", "o", "n")}, {"f": 2, "l": 4096, "o": 0, "n": 8})
        self.assertEqual(self.service.requests[1]["o"], 8)
        self.assertEqual(self.service.requests[1]["n"], 3)

    def test_fetch_may_start_in_the_middle(self):
        self.fetch(first=9)
        self.assertEqual([number for number, _ in self.got], [9, 10])

    def test_file_that_is_a_multiple_of_the_block(self):
        self.service.files[2] = DATA[: 2 * BLOCK]
        self.fetch(size=2 * BLOCK)
        self.assertEqual(self.whole(), DATA[: 2 * BLOCK])

    def test_lost_duplicated_and_reordered_blocks_do_no_harm(self):
        self.service.order = lambda blocks: [blocks[0], blocks[0]] + blocks[:1:-1]
        self.fetch()
        self.assertEqual(self.whole(), DATA)

    def test_foreign_messages_on_the_topic_are_ignored(self):
        def noise(fetcher_body):
            other_token = dict(fetcher_body)
            other_token["c"] = "someone"
            other_file = dict(fetcher_body)
            other_file["f"] = 1
            return [other_token, other_file, fetcher_body]

        self.service.wrap = noise
        self.fetch()
        self.assertEqual(self.whole(), DATA)

    def test_any_spelling_of_the_json_is_understood(self):
        plain = self.service.encode
        for change in (
            lambda text: text.replace(b'": ', b'":'),
            lambda text: text.replace(b'": ', b'"  :\n '),
            lambda text: text.replace(b"/", b"\\/"),
        ):
            self.got = []
            self.service.encode = lambda message, change=change: change(plain(message))
            self.fetch()
            self.assertEqual(self.whole(), DATA)

    def test_lost_link_is_waited_for_and_the_rest_asked_for(self):
        self.service.drop_after = 5  # blocks, then the link is down for a while
        self.fetch()
        self.assertEqual(self.whole(), DATA)
        self.assertEqual(self.service.subscribed, 2)

    def test_silent_server_is_asked_a_bounded_number_of_times(self):
        self.service.mute = True
        self.assertIn("block 0", self.refused("transfer"))
        self.assertEqual(len(self.service.requests), 7)

    def test_handlers_and_subscriptions_are_gone_afterwards(self):
        self.fetch()
        self.assertEqual((self.service.handlers, self.service.filters), ([], []))

    def test_progress_is_told_between_requests(self):
        ticks = []

        async def tick(percent):
            ticks.append(percent)

        self.fetch(tick=tick)
        self.assertEqual(ticks, [72, 100])


class Refusing(Case):
    def test_rejection_carries_the_services_code(self):
        self.service.reject = {"o": "ResourceNotFound", "m": "no stream"}
        self.assertEqual(self.refused("stream"), "stream: ResourceNotFound: no stream")

    def test_long_member_names_of_a_rejection_are_understood(self):
        self.service.reject = {"code": "VersionMismatch", "message": "1 is not 2"}
        self.assertEqual(self.refused("stream"), "stream: VersionMismatch: 1 is not 2")

    def test_rejection_of_another_request_is_ignored(self):
        self.service.reject = {"o": "ResourceNotFound", "m": "", "c": "someone"}
        self.service.reject_once = True
        self.fetch()
        self.assertEqual(self.whole(), DATA)

    def test_passing_error_is_tried_again(self):
        self.service.reject = {"o": "InternalError", "m": "try later"}
        self.service.reject_once = True
        self.fetch()
        self.assertEqual(self.whole(), DATA)

    def test_subscription_that_the_policy_forbids(self):
        self.service.deny = Refused("SUBACK_128", "subscription refused: x")
        self.assertIn("SUBACK_128", self.refused("stream"))

    def test_block_of_a_wrong_size(self):
        self.refused("size", size=SIZE + 50)

    def test_malformed_data(self):
        for change in ({"p": "***"}, {"p": None}, {"i": None, "p": 5}, {"p": binascii.b2a_base64(b"x").decode()}):
            self.service.wrap = lambda body, change=change: [dict(list(body.items()) + list(change.items()))]
            with self.assertRaises(UpdateError):
                self.fetch()

    def test_text_that_is_not_json(self):
        self.service.raw = b"\xff{"
        self.refused("stream")

    def test_what_the_sink_raises_ends_the_fetch(self):
        def sink(number, data):
            raise UpdateError("block-hash", "no")

        self.refused("block-hash", sink=sink)

    def test_full_file_system_is_told(self):
        def sink(number, data):
            raise OSError(28)

        self.assertRaises(OSError, lambda: self.fetch(sink=sink))

    def test_link_that_stays_away(self):
        saved = transfer.Fetcher.OUTAGE_S
        transfer.Fetcher.OUTAGE_S = 0
        self.service.drop_after = 1
        self.service.stays_down = True
        try:
            self.refused("transfer")
        finally:
            transfer.Fetcher.OUTAGE_S = saved

    def test_no_client_yet(self):
        self.agent.client = None

        async def scenario():
            fetcher = Fetcher(self.agent, "s1")
            task = asyncio.create_task(fetcher.fetch(2, SIZE, self.take))
            await asyncio.sleep(0.01)
            self.service.start()
            self.agent.client = self.service
            await task
            await fetcher.close()
            self.service.stop()

        asyncio.run(scenario())
        self.assertEqual(self.whole(), DATA)


class Writing(unittest.TestCase):
    def setUp(self):
        self.folder = fresh("writer")
        self.files = [
            ("app.mpy", pattern(3 * BLOCK + 1000, 1)),
            ("empty.txt", b""),
            ("lib/a.mpy", pattern(10, 2)),
            ("lib/deep/b.mpy", pattern(20 * BLOCK, 3)),
            ("last", b""),
        ]
        self.artifact = Artifact(self.files)
        self.manifest = parse_manifest(self.artifact.manifest)
        self.payload = self.artifact.payload

    def tearDown(self):
        compat.remove_tree(self.folder)

    def writer(self, hashes=None):
        return Writer(self.folder, self.manifest, self.artifact.blocks if hashes is None else hashes)

    def feed(self, writer, first=0, last=None):
        for number in range(first, self.manifest.blocks if last is None else last):
            writer.block(number, self.payload[number * BLOCK : (number + 1) * BLOCK])

    def complete(self, writer):
        first = asyncio.run(writer.resume())
        self.feed(writer, first)
        asyncio.run(writer.finish())
        self.assertEqual(contents(self.folder), dict(self.files))
        return first

    def refused(self, code, function, *args):
        with self.assertRaises(UpdateError) as caught:
            function(*args)
        self.assertEqual(caught.exception.code, code)

    def test_files_come_out_whole(self):
        self.assertEqual(self.complete(self.writer()), 0)

    def test_hash_list_that_was_not_signed_is_refused(self):
        hashes = bytearray(self.artifact.blocks)
        hashes[40] ^= 1
        for bad in (bytes(hashes), self.artifact.blocks[:-32], b"", self.artifact.blocks + bytes(32)):
            self.refused("bundle", self.writer, bad)

    def test_block_that_was_not_signed_is_never_written(self):
        writer = self.writer()
        asyncio.run(writer.resume())
        bad = bytearray(self.payload[:BLOCK])
        bad[5] ^= 1
        self.refused("block-hash", writer.block, 0, bytes(bad))
        self.refused("block-hash", writer.block, 1, self.payload[:BLOCK])
        writer.close()
        self.assertEqual(contents(self.folder), {})

    def test_reset_at_any_block_costs_at_most_the_blocks_since_the_last_sync(self):
        for cut in range(self.manifest.blocks):
            compat.remove_tree(self.folder)
            os.mkdir(self.folder)
            writer = self.writer()
            asyncio.run(writer.resume())
            self.feed(writer, 0, cut)
            if writer._file is not None:
                writer._file.close()  # a reset after the last sync: here nothing is lost at all
            first = self.complete(self.writer())
            self.assertLessEqual(cut - first, SYNC_BLOCKS)
            self.assertEqual(first, cut)

    def test_what_a_reset_cut_from_a_file_is_fetched_again(self):
        writer = self.writer()
        asyncio.run(writer.resume())
        self.feed(writer)
        asyncio.run(writer.finish())
        path = self.folder + "/lib/deep/b.mpy"
        with open(path, "rb") as f:
            kept = f.read(5 * BLOCK + 7)
        with open(path, "wb") as f:
            f.write(kept)
        self.assertEqual(self.complete(self.writer()), (3 * BLOCK + 1010 + 5 * BLOCK + 7) // BLOCK)

    def test_block_whose_write_failed_half_way_may_come_again(self):
        writer = self.writer()
        asyncio.run(writer.resume())
        self.feed(writer, 0, 3)
        real = writer._open
        opened = [0]

        def failing():
            opened[0] += 1
            if opened[0] == 2:  # the block's second file
                raise MemoryError
            return real()

        writer._open = failing
        data = self.payload[3 * BLOCK : 4 * BLOCK]
        self.assertRaises(MemoryError, writer.block, 3, data)
        writer._open = real
        self.feed(writer, 3)
        asyncio.run(writer.finish())
        self.assertEqual(contents(self.folder), dict(self.files))

    def test_rotten_bytes_on_flash_are_fetched_again(self):
        self.complete(self.writer())
        damage(self.folder + "/app.mpy", 2 * BLOCK + 3)
        self.assertEqual(self.complete(self.writer()), 2)

    def test_missing_and_overlong_files_are_written_anew(self):
        self.complete(self.writer())
        os.unlink(self.folder + "/lib/a.mpy")
        self.assertEqual(self.complete(self.writer()), 3)
        with open(self.folder + "/lib/a.mpy", "ab") as f:
            f.write(b"more")
        self.assertEqual(self.complete(self.writer()), 3)

    def test_files_that_do_not_belong_are_deleted(self):
        self.complete(self.writer())
        os.mkdir(self.folder + "/stale")
        for name in ("app.py", "lib/app.pyc", "stale/x"):
            with open(self.folder + "/" + name, "wb") as f:
                f.write(b"x")
        self.assertEqual(self.complete(self.writer()), self.manifest.blocks)

    def test_finish_reads_back_and_names_the_file(self):
        writer = self.writer()
        asyncio.run(writer.resume())
        self.feed(writer)
        writer.close()
        damage(self.folder + "/lib/a.mpy")
        with self.assertRaises(UpdateError) as caught:
            asyncio.run(writer.finish())
        self.assertEqual(caught.exception.code, "file-hash")
        self.assertIn("lib/a.mpy", str(caught.exception))

    def test_finish_before_the_last_block_is_refused(self):
        writer = self.writer()
        asyncio.run(writer.resume())
        self.feed(writer, 0, 10)
        self.refused("file-hash", lambda: asyncio.run(writer.finish()))

    def test_file_hash_that_contradicts_the_block_hashes_is_refused(self):
        self.artifact.blocks = self.artifact.blocks[:-32] + bytes(32)  # the last file's
        self.artifact.document["payload"]["blocks_sha256"] = hexed(sha(self.artifact.blocks))
        self.manifest = parse_manifest(json.dumps(self.artifact.document).encode())
        writer = self.writer()
        asyncio.run(writer.resume())
        self.feed(writer)
        self.refused("file-hash", lambda: asyncio.run(writer.finish()))

    def test_payload_hash_is_checked_too(self):
        self.artifact.document["payload"]["sha256"] = "00" * 32
        self.manifest = parse_manifest(json.dumps(self.artifact.document).encode())
        writer = self.writer()
        asyncio.run(writer.resume())
        self.feed(writer)
        self.refused("file-hash", lambda: asyncio.run(writer.finish()))

    def test_many_small_files_in_one_block(self):
        self.files = [("f%02d" % n, pattern(n * 3, n)) for n in range(100)]
        self.artifact = Artifact(self.files)
        self.manifest = parse_manifest(self.artifact.manifest)
        self.payload = self.artifact.payload
        self.complete(self.writer())


if __name__ == "__main__":
    unittest.main()
