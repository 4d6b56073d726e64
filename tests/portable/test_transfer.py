# SPDX-License-Identifier: Apache-2.0
"""Blocks over MQTT streams, and verified blocks into files."""

import asyncio
import binascii
import json
import os
import unittest

from edgeagent import clock, compat, log
from edgeagent.errors import Refused, UpdateError
from edgeagent.limits import LIMITS
from edgeagent.ota import transfer
from edgeagent.ota.manifest import parse_manifest
from edgeagent.ota.transfer import Fetcher
from edgeagent.ota.writer import Writer
from tests.portable.ota_support import (
    BLOCK,
    Artifact,
    contents,
    damage,
    entries,
    fill,
    fresh,
    hexed,
    pattern,
    refusal,
    sha,
    slot_contents,
)
from tests.portable.ota_world import Agent, Service, cbor

SIZE = 10 * BLOCK + 100
DATA = pattern(SIZE)


class Case(unittest.TestCase):
    form = "cbor"
    stream = "s1"

    def setUp(self):
        self.saved = LIMITS.REQUEST_S, transfer.Fetcher.POLL_S
        LIMITS.REQUEST_S = 0.05
        transfer.Fetcher.POLL_S = 0.001
        log.configure(100)
        self.service = Service([b"envelope", b"h" * 32, DATA])
        self.agent = Agent(self.service)
        self.got = []
        self.rate = 0

    def tearDown(self):
        LIMITS.REQUEST_S, transfer.Fetcher.POLL_S = self.saved
        log.configure(log.INFO)

    def fetch(self, file=2, size=SIZE, have=None, sink=None, tick=None):
        async def scenario():
            self.fetcher = fetcher = Fetcher(self.agent, self.stream, self.form, self.rate)
            try:
                await fetcher.fetch(file, size, sink or self.take, have, tick)
            finally:
                await fetcher.close()

        asyncio.run(self.service.during(scenario()))

    def take(self, number, data):
        self.got.append((number, bytes(data)))

    def whole(self):
        """What came, in the file's order; no block may have come twice."""
        self.assertEqual(len({number for number, _ in self.got}), len(self.got))
        return b"".join([data for _, data in sorted(self.got)])

    def refused(self, code, **case):
        return refusal(self, code, self.fetch, **case)


class Fetching(Case):
    def test_blocks_of_an_orderly_service_come_in_order_each_once(self):
        self.fetch()
        self.assertEqual([number for number, _ in self.got], list(range(11)))
        self.assertEqual(self.whole(), DATA)

    def test_requests_follow_the_stream_protocol(self):
        self.fetch()
        first = self.service.requests[0]
        self.assertEqual({k: first[k] for k in ("f", "l", "o", "n")}, {"f": 2, "l": 4096, "o": 0, "n": 4})

    def test_every_block_is_asked_for_once(self):
        self.fetch()
        asked = []
        for request in self.service.requests:
            asked += range(request["o"], request["o"] + request["n"])
        self.assertEqual(asked, list(range(11)))

    def test_only_missing_blocks_are_fetched(self):
        have = bytearray(b"\xfb\x01")  # all but 2, 9 and 10
        self.fetch(have=have)
        self.assertEqual([number for number, _ in self.got], [2, 9, 10])
        self.assertEqual(have, b"\xff\x07")

    def test_file_of_which_all_is_there_needs_no_request(self):
        self.fetch(have=bytearray(b"\xff\x07"))
        self.assertEqual((self.got, self.service.requests), ([], []))

    def test_file_that_is_a_multiple_of_the_block(self):
        self.service.files[2] = DATA[: 2 * BLOCK]
        self.fetch(size=2 * BLOCK)
        self.assertEqual(self.whole(), DATA[: 2 * BLOCK])

    def test_lost_duplicated_and_reordered_blocks_do_no_harm(self):
        self.service.order = lambda blocks: [blocks[0], blocks[0]] + blocks[:1:-1]
        self.fetch()
        self.assertEqual(self.whole(), DATA)

    def test_block_that_the_sink_has_no_use_for_yet_comes_again(self):
        self.service.order = lambda blocks: blocks[1:] + blocks[:1]

        def in_order(number, data):
            if number != len(self.got):
                return True
            return self.take(number, data)

        self.fetch(sink=in_order)
        self.assertEqual(self.whole(), DATA)

    def test_foreign_messages_on_the_topic_are_ignored(self):
        def noise(fetcher_body):
            other_token = dict(fetcher_body)
            other_token["c"] = "someone"
            other_file = dict(fetcher_body)
            other_file["f"] = 1
            beyond = dict(fetcher_body)
            beyond["i"] = 11
            return [other_token, other_file, beyond, fetcher_body]

        self.service.wrap = noise
        self.fetch()
        self.assertEqual(self.whole(), DATA)

    def test_lost_link_is_waited_for_and_the_rest_asked_for(self):
        self.service.drop_after = 5  # blocks, then the link is down for a while
        self.fetch()
        self.assertEqual(self.whole(), DATA)
        self.assertEqual(self.service.subscribed, 2)

    def test_names_may_contain_the_words_of_the_topics(self):
        for self.agent.thing_name, self.stream in (("rejected", "s1"), ("thing", "rejected"), ("data", "x-rejected-y")):
            self.got = []
            self.fetch()
            self.assertEqual(self.whole(), DATA)

    def test_silent_server_is_asked_a_bounded_number_of_times(self):
        self.service.mute = True
        self.assertIn("block 0", self.refused("transfer"))
        self.assertEqual(len(self.service.requests), 7)

    def test_blocks_that_nobody_asked_for_do_not_keep_it_waiting(self):
        for again in (0, 1 << 20):  # one that is there; one behind the end

            def withhold(body, again=again):
                if body["i"] != 9:
                    return [body]
                body["i"] = again
                self.flood = self.flood or asyncio.create_task(self.repeat(body))
                return []

            self.got = []
            self.flood = None
            self.service.requests = []
            self.service.wrap = withhold
            start = clock.ticks()
            self.assertIn("block 9", self.refused("transfer"))
            self.assertTrue(clock.elapsed_ms(start) < 3000)
            self.assertEqual(len(self.got), 10)
            self.assertTrue(len(self.service.requests) < 20)

    async def repeat(self, body):
        """Send a block again and again, more often than any wait is long, for longer than the fetch may take."""
        body["p"] = DATA[:BLOCK] if self.form == "cbor" else binascii.b2a_base64(DATA[:BLOCK]).decode().strip()
        message = cbor(body) if self.form == "cbor" else json.dumps(body).encode()
        for _ in range(400):
            await asyncio.sleep(0.01)
            if not self.fetcher._sink:
                return
            self.service.deliver("$aws/things/thing/streams/s1/data/" + self.form, message)

    def test_service_that_falls_silent_in_the_middle_ends_the_fetch(self):
        self.service.limit = 3
        self.assertIn("block 3", self.refused("transfer"))

    def test_handlers_and_subscriptions_are_gone_afterwards(self):
        self.fetch()
        self.assertEqual((self.service.handlers, self.service.filters), ([], []))

    def test_handlers_are_gone_after_a_cancelled_fetch(self):
        async def scenario():
            self.service.start()
            self.service.limit = 3
            fetcher = Fetcher(self.agent, "s1", self.form)

            async def job():
                try:
                    await fetcher.fetch(2, SIZE, self.take)
                finally:
                    await fetcher.close()

            task = asyncio.create_task(job())
            await self.service.reached.wait()
            task.cancel()
            try:
                await task
                self.fail("not cancelled")
            except asyncio.CancelledError:
                pass
            self.service.stop()

        asyncio.run(scenario())
        self.assertEqual((self.service.handlers, len(self.got)), ([], 3))

    def test_progress_is_told_and_the_transfer_does_not_wait_for_it(self):
        ticks = []
        blocks = []

        async def tick(percent):
            ticks.append(percent)
            while len(self.got) < 11:  # noqa: ASYNC110
                await asyncio.sleep(0)
            blocks.append(len(self.got))

        self.fetch(tick=tick)
        self.assertTrue(ticks[0] < 100)
        self.assertEqual(blocks[0], 11)

    def test_what_progress_raises_ends_the_fetch(self):
        async def tick(percent):
            raise asyncio.CancelledError

        with self.assertRaises(asyncio.CancelledError):
            self.service.files[2] = pattern(50 * BLOCK)
            self.fetch(size=50 * BLOCK, tick=tick)
        self.assertTrue(len(self.got) < 50)

    def test_rate_is_kept(self):
        self.rate = 100000
        start = clock.ticks()
        self.fetch()
        # Less than the last block is not waited for.
        self.assertTrue(clock.elapsed_ms(start) >= (SIZE - BLOCK) * 1000 // self.rate * 95 // 100)


class FetchingJson(Fetching):
    form = "json"

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


class FetchingCbor(Case):
    def test_any_spelling_of_the_cbor_is_understood(self):
        def indefinite(message):
            return b"\xbf" + cbor(message)[1:] + b"\xff"

        def long_heads(message):
            out = b"\xba" + len(message).to_bytes(4, "big")
            for name in message:
                value = message[name]
                out += b"\x78" + bytes([len(name)]) + name.encode()
                out += b"\x1a" + value.to_bytes(4, "big") if isinstance(value, int) else cbor(value)
            return out

        def more(message):
            message = dict(message)
            message["x"] = None
            return cbor(message)

        for encode in (indefinite, long_heads, more):
            self.got = []
            self.service.encode_cbor = encode
            self.fetch()
            self.assertEqual(self.whole(), DATA)

    def test_message_without_a_token_is_taken(self):
        def without(message):
            return cbor({name: message[name] for name in message if name != "c"})

        self.service.encode_cbor = without
        self.fetch()
        self.assertEqual(self.whole(), DATA)

    def test_malformed_cbor_ends_the_fetch_at_once(self):
        good = cbor({"c": "x", "f": 2, "i": 0, "p": b"data"})
        for raw in (
            b"",
            b"\xff",
            b"\x80",
            b"\xa1",
            b"\xa1\x61",
            b"\xa1\x61i\x80",  # an array
            b"\xa1\x61i\xa0",  # a map
            b"\xa1\x61i\x20",  # negative
            b"\xa1\x61i\xc0\x00",  # a tag
            b"\xa1\x61i\xfb\0\0\0\0\0\0\0\0",  # a double
            b"\xa1\x61i\x1b\0\0\0\0\0\0\0\0",  # 8 bytes
            b"\xa1\x61p\x5f\x41x\xff",  # bytes in pieces
            b"\xbf\x61i\x00",  # no end
            good[:-1],
        ):
            self.service = Service([b"", b"", DATA])
            self.agent.client = self.service
            self.service.raw = raw
            self.refused("stream")
            self.assertEqual(len(self.service.requests), 1)


class Unlucky(Service):
    """Loses, doubles, delays and disorders messages by a seeded schedule; loses the link, too."""

    def __init__(self, files, seed):
        super().__init__(files)
        self.state = seed * 2654435761 % (1 << 32) or 1
        self.loss = self.dice(25)
        self.copies = self.dice(20)
        self.late = self.dice(40)
        self.breaks = self.dice(3)
        self.held = []

    def dice(self, sides):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.state >> 8) % sides

    def deliver(self, topic, payload):
        if self.dice(100) < self.loss:
            return
        copies = 1 + (self.dice(100) < self.copies)
        for _ in range(copies):
            # CBOR messages hold views; the client gives each its own buffer.
            if self.dice(100) < self.late:
                self.held.append((self.dice(12), topic, bytearray(payload)))
            else:
                super().deliver(topic, bytearray(payload))
        still = []
        for turns, held_topic, data in self.held:
            if turns:
                still.append((turns - 1, held_topic, data))
            else:
                super().deliver(held_topic, data)
        self.held = still
        if self.breaks and self.dice(60) == 0:
            self.breaks -= 1
            self.drop_after = 0


class Schedules(Case):
    SEEDS = 12

    def test_every_block_arrives_once_and_whole_whatever_the_schedule(self):
        size = 90 * BLOCK + 7
        data = pattern(size)
        LIMITS.REQUEST_S = 0.02
        for form in ("cbor", "json"):
            self.form = form
            for seed in range(self.SEEDS):
                self.service = Unlucky([b"", b"", data], seed)
                self.agent.client = self.service
                got = []

                def take(number, block, got=got):
                    got.append(number)
                    if block != data[number * BLOCK : (number + 1) * BLOCK]:
                        raise UpdateError("block", str(number))

                try:
                    self.fetch(size=size, sink=take)
                    self.assertEqual(sorted(got), list(range(91)))
                except Exception:
                    print("seed", seed, form)
                    raise

    def test_lost_block_is_asked_for_again_before_the_time_out(self):
        LIMITS.REQUEST_S = 30
        size = 60 * BLOCK
        self.service.files[2] = pattern(size)
        lost = []

        def lose(body):
            if body["i"] == 20 and not lost:
                lost.append(body["i"])
                return []
            return [body]

        self.service.wrap = lose
        start = clock.ticks()
        self.fetch(size=size)
        self.assertEqual((len(self.got), lost), (60, [20]))
        self.assertTrue(clock.elapsed_ms(start) < 1500)

    def test_window_grows_while_all_goes_well(self):
        size = 150 * BLOCK
        self.service.files[2] = bytes(size)
        self.fetch(size=size, sink=self.drop)
        self.assertEqual(self.fetcher._window, Fetcher.WINDOW)
        self.assertTrue(len(self.service.requests) < 25)

    def drop(self, number, data):
        pass

    def test_window_shrinks_when_blocks_are_lost(self):
        size = 150 * BLOCK
        self.service.files[2] = bytes(size)
        sent = [0]

        def lose(body):
            sent[0] += 1
            return [] if sent[0] % 6 == 0 else [body]

        self.service.wrap = lose
        self.fetch(size=size, sink=self.drop)
        self.assertTrue(self.fetcher._window <= 16)

    def test_window_shrinks_when_requests_only_queue(self):
        size = 60 * BLOCK
        self.service.files[2] = bytes(size)
        self.fetch(size=size, sink=self.drop)
        fetcher = self.fetcher
        fetcher._window = 32
        fetcher._best, fetcher._trip, fetcher._fresh = 100, 900, True
        fetcher._asked[:] = list(range(40))

        async def scenario():
            self.service.start()
            fetcher._client = self.service
            await fetcher._ask(0, 0, 0)
            self.service.stop()

        asyncio.run(scenario())
        self.assertEqual(fetcher._window, 24)


class Refusing(Case):
    def test_rejection_carries_the_services_code(self):
        self.service.reject = {"o": "ResourceNotFound", "m": "no stream"}
        self.assertEqual(self.refused("stream"), "stream: ResourceNotFound: no stream")

    def test_stream_that_is_deleted_in_the_middle_ends_the_fetch_at_once(self):
        def deleted(body):
            self.service.reject = {"o": "ResourceNotFound", "m": "gone"}
            return [body]

        self.service.wrap = deleted
        self.refused("stream")
        self.assertEqual(len(self.service.requests), 2)

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

    def test_every_kind_of_passing_error_is_tried_again(self):
        for code in (
            "InternalException",
            "InternalFailureException",
            "Throttled",
            "ThrottlingException",
            "RequestThrottled",
            "LimitExceededException",
            "ServiceUnavailable",
            "TooManyRequestsException",
        ):
            self.got = []
            self.service.reject = {"o": code, "m": "slow down"}
            self.service.reject_once = True
            self.fetch()
            self.assertEqual(self.whole(), DATA)

    def test_errors_that_stay_end_it_after_one_request(self):
        for code in ("BlockCountLimitExceeded", "Unauthorized", "OffsetOutOfBounds", "ETagMismatch", "", None, 7):
            self.service.requests = []
            self.service.reject = {"o": code, "m": "no"}
            self.refused("stream")
            self.assertEqual(len(self.service.requests), 1)

    def throttled(self):
        """Seconds of the waits of a fetch that is refused to the end, and its reason."""
        waits = []
        saved = asyncio.sleep

        async def sleep(seconds):
            if seconds:
                waits.append(seconds / transfer.Fetcher.POLL_S)
            await saved(0)

        self.service.requests = []
        self.service.reject = {"o": "ThrottlingException", "m": "slow down"}
        asyncio.sleep = sleep
        try:
            reason = self.refused("transfer")
        finally:
            asyncio.sleep = saved
        return waits, reason

    def test_throttling_is_waited_out_for_minutes_with_growing_waits(self):
        waits, reason = self.throttled()
        self.assertEqual(len(self.service.requests), 7)
        self.assertIn("block 0: ThrottlingException: slow down", reason)
        self.assertEqual(len(waits), 6)
        for n in range(6):
            self.assertTrue(4 << n <= waits[n] <= (8 << n) + n, str(waits))

    def test_devices_that_were_refused_together_do_not_come_back_together(self):
        self.assertEqual(len({sum(self.throttled()[0]) for _ in range(4)}), 4)

    def test_subscription_that_the_policy_forbids(self):
        self.service.deny = Refused("SUBACK_128", "subscription refused: x")
        self.assertIn("SUBACK_128", self.refused("stream"))

    def test_block_of_a_wrong_size(self):
        self.refused("size", size=SIZE + 50)

    def test_malformed_data(self):
        for change in ({"p": None}, {"i": None}, {"i": "1" * 3000}, {"f": None}, {"p": 5}, {"p": b"x"}):
            self.service.wrap = lambda body, change=change: [dict(list(body.items()) + list(change.items()))]
            if change == {"f": None}:  # of another file, for all that is known
                self.refused("transfer")
            else:
                with self.assertRaises(UpdateError):
                    self.fetch()

    def test_block_number_that_only_looks_like_one(self):
        self.form = "json"
        for number in (True, "1", 1.0, [1], {}):
            self.service.wrap = lambda body, number=number: [dict(list(body.items()) + [("i", number)])]
            self.assertIn("malformed", self.refused("stream"))

    def test_text_that_is_not_json(self):
        self.form = "json"
        for raw in (b"\xff{", b"[]", b'{"p":', b"1"):
            self.service.raw = raw
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
        self.root = fresh("writer")
        self.reset()
        self.files = [
            ("app.mpy", pattern(3 * BLOCK + 1000, 1)),
            ("empty.txt", b""),
            ("lib/a.mpy", pattern(10, 2)),
            ("lib/deep/b.mpy", pattern(20 * BLOCK, 3)),
            ("last", b""),
        ]
        self.artifact = Artifact(self.files)
        self.payload = self.artifact.payload

    def tearDown(self):
        compat.remove_tree(self.root)

    def reset(self):
        compat.remove_tree(self.root)
        compat.make_dirs(self.root + "/store")
        self.slot = self.root + "/b"

    def on_flash(self, path):
        """Where the content of a file is."""
        return self.root + "/store/" + hexed(sha(dict(self.files)[path])[:16])

    def running(self, files):
        """Slot a runs these files."""
        fill(self.root + "/a", files)

    def writer(self, hashes=None):
        self.manifest = parse_manifest(self.artifact.manifest)
        return Writer(self.slot, self.manifest, self.artifact.blocks if hashes is None else hashes)

    def resumed(self):
        """A writer that knows what is on the flash."""
        writer = self.writer()
        asyncio.run(writer.resume())
        return writer

    def feed(self, writer, first=0, last=None):
        for number in range(first, self.manifest.blocks if last is None else last):
            writer.block(number, self.payload[number * BLOCK : (number + 1) * BLOCK])

    def complete(self, writer):
        asyncio.run(writer.resume())
        first = 0
        while first < self.manifest.blocks and writer.have[first >> 3] >> (first & 7) & 1:
            first += 1
        self.feed(writer, first)
        asyncio.run(writer.finish())
        self.assertEqual(slot_contents(self.slot), dict(self.files))
        return first

    def refused(self, code, function, *args):
        return refusal(self, code, function, *args)

    def test_files_come_out_whole(self):
        self.assertEqual(self.complete(self.writer()), 0)

    def test_hash_list_that_was_not_signed_is_refused(self):
        hashes = bytearray(self.artifact.blocks)
        hashes[40] ^= 1
        for bad in (bytes(hashes), self.artifact.blocks[:-32], b"", self.artifact.blocks + bytes(32)):
            self.refused("bundle", self.writer, bad)

    def test_block_that_was_not_signed_is_never_written(self):
        writer = self.resumed()
        bad = bytearray(self.payload[:BLOCK])
        bad[5] ^= 1
        self.refused("block-hash", writer.block, 0, bytes(bad))
        self.refused("block-hash", writer.block, 1, self.payload[:BLOCK])
        writer.close()
        self.assertEqual(list(contents(self.root + "/store").values()), [b""])

    def test_reset_after_any_block_costs_none(self):
        for cut in range(24):
            self.reset()
            writer = self.resumed()
            self.feed(writer, 0, cut)
            writer._file = None  # nothing is closed: a power cut of a machine whose flash has what was synced
            self.assertEqual(self.complete(self.writer()), cut)

    def test_blocks_may_come_in_any_order(self):
        for step in (1, 5, 7, 11, 23):  # none divides 24
            self.reset()
            writer = self.resumed()
            for n in range(24):
                number = n * step % 24
                writer.block(number, self.payload[number * BLOCK : (number + 1) * BLOCK])
            asyncio.run(writer.finish())
            self.assertEqual(slot_contents(self.slot), dict(self.files))

    def test_blocks_beyond_a_hole_are_found_after_a_reset(self):
        writer = self.resumed()
        for number in (1, 2, 5, 22):
            writer.block(number, self.payload[number * BLOCK : (number + 1) * BLOCK])
        writer.close()
        writer = self.writer()
        asyncio.run(writer.resume())
        self.assertEqual([n for n in range(24) if writer.have[n >> 3] >> (n & 7) & 1], [1, 2, 5, 22])

    def test_hash_list_may_be_a_file(self):
        path = self.root + ".list"
        try:
            with open(path, "wb") as f:
                f.write(self.artifact.blocks)
            with open(path, "rb") as f:
                self.complete(self.writer(f))
            with open(path, "ab") as f:
                f.write(b"x")
            with open(path, "rb") as f:
                self.refused("bundle", self.writer, f)
        finally:
            os.unlink(path)

    def test_what_a_reset_cut_from_a_file_is_fetched_again(self):
        writer = self.resumed()
        self.feed(writer)
        asyncio.run(writer.finish())
        path = self.on_flash("lib/deep/b.mpy")
        with open(path, "rb") as f:
            kept = f.read(5 * BLOCK + 7)
        with open(path, "wb") as f:
            f.write(kept)
        self.assertEqual(self.complete(self.writer()), (3 * BLOCK + 1010 + 5 * BLOCK + 7) // BLOCK)

    def test_block_whose_write_failed_half_way_may_come_again(self):
        writer = self.resumed()
        self.feed(writer, 0, 3)
        real = writer.open
        opened = [0]

        def failing(name):
            opened[0] += 1
            if opened[0] == 2:  # the block's second file
                raise MemoryError
            return real(name)

        writer.open = failing
        data = self.payload[3 * BLOCK : 4 * BLOCK]
        self.assertRaises(MemoryError, writer.block, 3, data)
        writer.open = real
        self.feed(writer, 3)
        asyncio.run(writer.finish())
        self.assertEqual(slot_contents(self.slot), dict(self.files))

    def test_rotten_bytes_on_flash_are_fetched_again(self):
        self.complete(self.writer())
        damage(self.on_flash("app.mpy"), 2 * BLOCK + 3)
        self.assertEqual(self.complete(self.writer()), 2)

    def test_missing_and_overlong_files_are_written_anew(self):
        self.complete(self.writer())
        os.unlink(self.on_flash("lib/a.mpy"))
        self.assertEqual(self.complete(self.writer()), 3)
        with open(self.on_flash("lib/a.mpy"), "ab") as f:
            f.write(b"more")
        self.assertEqual(self.complete(self.writer()), 3)

    def test_files_that_do_not_belong_are_deleted(self):
        self.complete(self.writer())
        kept = contents(self.root + "/store")
        for name in ("00" * 16, "11" * 16 + "-755", "11" * 16 + "x", "stale"):
            with open(self.root + "/store/" + name, "wb") as f:
                f.write(b"x")
        self.assertEqual(self.complete(self.writer()), self.manifest.blocks)
        self.assertEqual(contents(self.root + "/store"), kept)

    def test_finish_reads_back_and_names_the_file(self):
        writer = self.resumed()
        self.feed(writer)
        writer.close()
        damage(self.on_flash("lib/a.mpy"))
        self.assertIn("lib/a.mpy", self.refused("file-hash", lambda: asyncio.run(writer.finish())))

    def test_finish_before_the_last_block_is_refused(self):
        writer = self.resumed()
        self.feed(writer, 0, 10)
        self.refused("file-hash", lambda: asyncio.run(writer.finish()))

    def test_file_hash_that_contradicts_the_block_hashes_is_refused(self):
        self.artifact.blocks = self.artifact.blocks[:-32] + bytes(32)  # the last file's
        self.artifact.document["payload"]["blocks_sha256"] = hexed(sha(self.artifact.blocks))
        self.artifact.manifest = json.dumps(self.artifact.document).encode()
        writer = self.resumed()
        self.feed(writer)
        self.refused("file-hash", lambda: asyncio.run(writer.finish()))

    def test_payload_hash_is_checked_too(self):
        self.artifact.document["payload"]["sha256"] = "00" * 32
        self.artifact.manifest = json.dumps(self.artifact.document).encode()
        writer = self.resumed()
        self.feed(writer)
        self.refused("file-hash", lambda: asyncio.run(writer.finish()))

    def test_many_small_files_in_one_block(self):
        self.files = [("f%02d" % n, pattern(n * 3, n)) for n in range(100)]
        self.artifact = Artifact(self.files)
        self.payload = self.artifact.payload
        self.complete(self.writer())

    def test_what_the_running_version_has_is_neither_fetched_nor_written(self):
        self.running({"deep.bin": self.files[3][1], "other": b"gone"})
        path = self.on_flash("lib/deep/b.mpy")
        with open(path, "rb") as kept:
            opened = []
            writer = self.resumed()
            real = writer.open
            writer.open = lambda number: opened.append(writer.path(number)) or real(number)
            missing = [n for n in range(24) if not writer.have[n >> 3] >> (n & 7) & 1]
            # The first 3.25 blocks are another file's; the shared one begins in block 3 and ends in the last.
            self.assertEqual(missing, [0, 1, 2, 3])
            for number in missing:
                writer.block(number, self.payload[number * BLOCK : (number + 1) * BLOCK])
            asyncio.run(writer.finish())
            self.assertEqual(kept.read(), self.files[3][1])
        self.assertEqual(slot_contents(self.slot), dict(self.files))
        self.assertTrue(opened)
        self.assertFalse(path in opened)

    def test_what_the_running_version_uses_is_not_deleted(self):
        before = {"old.mpy": b"old", "app.mpy": self.files[0][1]}
        self.running(before)
        self.complete(self.writer())
        self.assertEqual(slot_contents(self.root + "/a"), before)

    def test_decayed_file_of_the_running_version_is_fetched_and_the_running_one_stays_as_it_is(self):
        for change in ("flip", "short", "long", "gone"):
            self.reset()
            self.running({"app.mpy": self.files[0][1]})
            path = self.on_flash("app.mpy")
            if change == "flip":
                damage(path, 5000)
            elif change == "gone":
                os.unlink(path)
            else:
                with open(path, "wb") as f:
                    f.write(self.files[0][1][:5000] if change == "short" else self.files[0][1] + b"x")
            before = contents(self.root + "/store")
            self.assertEqual(self.complete(self.writer()), 0)
            after = contents(self.root + "/store")
            self.assertEqual([after.get(name) for name in before], list(before.values()))

    def test_files_with_the_same_content_are_one(self):
        same = pattern(5000, 9)
        self.files = [("a.bin", same), ("b.bin", same), ("x/c.bin", same), ("d", b""), ("e", b"")]
        self.artifact = Artifact(self.files)
        self.payload = self.artifact.payload
        self.complete(self.writer())
        self.assertEqual(sorted(contents(self.root + "/store").values()), [b"", same])

    def test_one_content_with_two_modes_is_two_files(self):
        self.files = [("a.sh", b"x"), ("b.txt", b"x"), ("c.sh", b"x")]
        self.artifact = Artifact(self.files)
        self.artifact.document["files"] = [["a.sh", 1, 0o755], ["b.txt", 1], ["c.sh", 1, 0o700]]
        self.artifact.seal()
        self.payload = self.artifact.payload
        self.complete(self.writer())
        name = hexed(sha(b"x")[:16])
        self.assertEqual([entry[2] for entry in entries(self.slot)], [name + "-755", name, name + "-700"])

    def test_index_lists_the_files_in_the_order_of_the_manifest(self):
        self.complete(self.writer())
        listed = [(path, int(size)) for path, size, _ in entries(self.slot)]
        self.assertEqual(listed, [(path, len(data)) for path, data in self.files])


if __name__ == "__main__":
    unittest.main()
