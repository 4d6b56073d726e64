# SPDX-License-Identifier: Apache-2.0
"""Patches: what they make, that nothing wrong ever comes of a bad one, and the job that uses them or does without."""

import asyncio
import binascii
import io
import unittest

from edgeagent import compat, space
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.jobs import ota
from edgeagent.ota import delta
from hil.cuts.board.patch import number, patch, squeezed, stored
from tests.portable.ota_support import BLOCK, Artifact, pattern
from tests.portable.ota_world import Job as Context
from tests.portable.ota_world import Reset, Service
from tests.portable.test_ota_handler import Case

IDS = bytes(range(32))
SEEDS = range(40)
# Made by edgefleet.artifacts.delta of `small()`: a real compressor's output, window of 1 KiB.
SMALL = (
    "454144310a000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fedd0b10980300000c158055c20a5d8ba9518d1ca"
    "99b28345329263b885a8dc2df0f0e18a3100bfb7ecf3b1adb93f93170000f06e6568c9050000f8803ae5ee89ce7803"
)


class Chance:
    """The same numbers on both runtimes."""

    def __init__(self, seed):
        self.state = seed * 2654435761 + 1

    def below(self, n):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.state >> 8) % n

    def bytes(self, n):
        return bytes([self.below(256) for _ in range(n)])


def pair(seed, size=20000):
    """(old, new, records): parts of the old data, changed here and there, and new bytes between them."""
    chance = Chance(seed)
    old = chance.bytes(chance.below(size) + 1)
    new = bytearray()
    records = []
    while not new or chance.below(5):
        start = chance.below(len(old))
        add = chance.below(len(old) - start + 1)
        copy = chance.below(300) if chance.below(2) else 0
        if add + copy:
            part = bytearray(old[start : start + add])
            for _ in range(add and chance.below(40)):
                part[chance.below(add)] = chance.below(256)
            new.extend(part + chance.bytes(copy))
            records.append((start, add, copy))
    return old, bytes(new), records


class Old:
    artifact = "aa" * 32

    def __init__(self, data):
        self.data = data
        self.size = len(data)

    def readinto(self, at, view):
        view[:] = self.data[at : at + len(view)]


class Writer:
    """Takes blocks that are right. have: which are there from the start."""

    def __init__(self, new, have=()):
        self.new = new
        self.blocks = {}
        self.have = bytearray(len(new) // BLOCK // 8 + 1)
        for n in have:
            self.have[n >> 3] |= 1 << (n & 7)

    def block(self, number, data):
        if bytes(data) != self.new[number * BLOCK : (number + 1) * BLOCK]:
            raise UpdateError("block-hash", "block %d" % number)
        if number in self.blocks:
            raise AssertionError("block %d twice" % number)
        self.blocks[number] = True


def made(raw, old, writer, size=None):
    """Steps it took."""
    source = delta.apply(io.BytesIO(raw), IDS, Old(old), size or len(writer.new), writer, bytearray(BLOCK))
    return sum([1 for _ in source])


def small():
    """(old, new) of which the patch is small."""
    old = pattern(9000)
    return old, old[:1000] + b"changed" + old[1005:4000] + old[6000:] + old[100:200] + b"!"


class Decode(unittest.TestCase):
    def test_makes_the_new_payload(self):
        for seed in SEEDS:
            old, new, records = pair(seed)
            writer = Writer(new)
            made(patch(old, new, records, IDS), old, writer)
            self.assertEqual(len(writer.blocks), (len(new) + BLOCK - 1) // BLOCK, "seed %d" % seed)

    def test_output_of_a_real_compressor(self):
        old, new = small()
        writer = Writer(new)
        made(binascii.unhexlify(SMALL), old, writer)
        self.assertEqual(len(writer.blocks), 2)

    def test_blocks_that_are_there_are_not_written_again(self):
        for seed in SEEDS:
            old, new, records = pair(seed)
            total = (len(new) + BLOCK - 1) // BLOCK
            there = [n for n in range(total) if Chance(seed + n).below(2)]
            writer = Writer(new, there)
            made(patch(old, new, records, IDS), old, writer)
            self.assertEqual(sorted(list(writer.blocks) + there), list(range(total)), "seed %d" % seed)

    def test_long_work_is_cut_into_slices(self):
        old = pattern(100000)
        steps = made(patch(old, old, [(0, len(old), 0)], IDS), old, Writer(old))
        self.assertGreater(steps, len(old) // 1600)

    def test_many_small_records_are_cut_into_slices(self):
        old = pattern(2000)
        steps = made(patch(old, old, [(n, 1, 0) for n in range(2000)], IDS), old, Writer(old))
        self.assertGreater(steps, 2000 // 17)


class Bad(unittest.TestCase):
    """None of these may do anything but raise, and write what is right before that."""

    def fails(self, raw, old=b"0123456789" * 10, size=100):
        with self.assertRaises((ValueError, OSError, EOFError)):
            made(raw, old, Writer(bytes(size)), size)

    def records(self, body):
        return delta.MAGIC + b"\x0a" + IDS + stored(body)

    def test_other_format_window_or_payload(self):
        old = b"0123456789" * 10
        good = patch(old, old, [(0, 100, 0)], IDS)
        made(good, old, Writer(old))
        for at, value in ((0, 0), (3, 50), (4, 8), (4, 13), (4, 255), (5, 1), (36, 0)):
            raw = bytearray(good)
            raw[at] = value
            with self.assertRaises(ValueError):
                made(bytes(raw), old, Writer(old))

    def test_every_truncation(self):
        old, new = small()
        raw = binascii.unhexlify(SMALL)
        for end in range(len(raw) - 1):
            # The last bytes of deflate may hold nothing that is needed.
            try:
                writer = Writer(new)
                made(raw[:end], old, writer)
                self.assertGreater(end, len(raw) - 4)
            except (ValueError, OSError, EOFError):
                self.assertLess(len(writer.blocks), 2)

    def test_every_byte_changed(self):
        old, new = small()
        raw = binascii.unhexlify(SMALL)
        whole = 0
        for at in range(len(raw)):
            for change in (1, 2, 4, 8, 16, 32, 64, 128, 255):
                bad = bytearray(raw)
                bad[at] ^= change
                writer = Writer(new)
                try:
                    made(bytes(bad), old, writer)
                    self.assertEqual(len(writer.blocks), 2)
                    whole += 1
                except (ValueError, OSError, EOFError, UpdateError):
                    pass
        self.assertLess(whole, len(raw))  # some bits at the end of deflate mean nothing

    def test_places_beyond_the_old_payload(self):
        for record in ((2 * 101, 1, 0), (1, 1, 0), (0, 101, 0), (2 * 100, 1, 0), (1, 0, 1)):
            self.fails(self.records(b"".join([number(n) for n in record]) + bytes(200)))

    def test_more_than_the_new_payload(self):
        for record in ((0, 60, 41), (0, 0, 101), (0, 1, (1 << 28) - 1)):
            self.fails(self.records(b"".join([number(n) for n in record]) + bytes(200)))

    def test_numbers_without_an_end(self):
        self.fails(self.records(b"\xff" * 1000))

    def test_records_that_make_nothing(self):
        self.fails(self.records(bytes(50000)))

    def test_random_bytes(self):
        for seed in SEEDS:
            self.fails(delta.MAGIC + b"\x0a" + IDS + Chance(seed).bytes(300))
            self.fails(self.records(Chance(seed).bytes(300)), Chance(seed + 1).bytes(100))


class Job(Case):
    """A device runs an artifact that came as a whole; the next one has a patch."""

    def setUp(self):
        Case.setUp(self)
        self.first = self.artifact
        self.reset()
        self.boot("2.0.0")
        self.run_job()
        old = self.first.payload
        added = Chance(1).bytes(9000)
        files = [("app.py", b"VERSION = 3, and longer"), ("data.bin", pattern(12 * BLOCK)[:-40] + added)]
        self.artifact = Artifact(files, version="3.0.0")
        new = self.artifact.payload
        self.records = [(0, 0, 23), (11, len(old) - 11 - 40, 9000)]
        self.patch = patch(old, new, self.records, self.ids(), squeezed)
        self.boot("2.0.0")

    def ids(self):
        return binascii.unhexlify(self.first.digest[:32] + self.artifact.digest[:32])

    def boot(self, version, cause="soft"):
        Case.boot(self, version, cause)
        if hasattr(self, "patch"):
            self.service = Service(self.artifact.parts() + [self.patch])
            self.agent.client = self.service

    def document(self, **changes):
        document = self.artifact.job()
        entry = {"from": self.first.digest, "bytes": len(self.patch), "file": 3}
        entry.update(changes)
        document["deltas"] = [{"from": "00" * 32, "bytes": 500, "file": 4}, entry]
        return document

    def update(self, **behaviour):
        behaviour.setdefault("document", self.document())
        behaviour.setdefault("data", {})
        self.reset(execution=2, **behaviour)
        files = [request["f"] for request in self.service.requests]
        self.delivered = self.service.sent
        self.reported = [details.get("delta") for _, details in self.job.reports]
        self.boot("3.0.0")
        done = self.run_job(execution=2, **behaviour)
        self.assertEqual(done["version"], "3.0.0")
        self.assertFalse([name for name in ("/patch", "/patch.why") if compat.exists(self.root + name)])
        return files, done.get("delta")

    def test_update_by_patch_alone(self):
        files, why = self.update()
        self.assertEqual(why, None)
        self.assertEqual(set(files), {0, 1, 3})

    def test_messages_that_come_while_it_is_decoded_do_not_spoil_it(self):
        def disturbed(*arguments):
            for _ in apply(*arguments):
                packet = self.agent.client.spare
                packet[:] = b"\xff" * len(packet)
                yield

        self.service.spare = bytearray(BLOCK + 400)
        apply, delta.apply = delta.apply, disturbed
        try:
            files, why = self.update()
        finally:
            delta.apply = apply
        self.assertEqual(why, None)
        self.assertEqual(set(files), {0, 1, 3})

    def test_what_runs_is_not_listed(self):
        files, why = self.update(document=self.document(**{"from": "11" * 32}))
        self.assertEqual(why, "none from " + self.first.digest)
        self.assertEqual(set(files), {0, 1, 2})
        self.assertIn(why, self.reported)

    def test_patch_larger_than_what_is_missing_is_left(self):
        self.patch += bytes(len(self.artifact.payload) - len(self.patch) - 1)
        self.boot("2.0.0")
        self.stop_after(4, self.artifact.job())
        files, why = self.update()
        self.assertEqual((set(files), why), ({2}, None))

    def test_bad_patch_falls_back_and_says_so(self):
        raw = bytearray(self.patch)
        raw[60] ^= 1
        self.patch = bytes(raw)
        self.boot("2.0.0")
        files, why = self.update()
        self.assertEqual(why, "UpdateError: block-hash: block 0")
        self.assertEqual(set(files), {0, 1, 2, 3})
        self.assertIn(why, self.reported)

    def test_patch_of_other_artifacts_falls_back(self):
        self.patch = patch(self.first.payload, self.artifact.payload, self.records, IDS, squeezed)
        self.boot("2.0.0")
        self.assertEqual(self.update()[1], "ValueError: not for this")

    def test_patch_that_ends_early_falls_back_and_keeps_what_it_has_made(self):
        self.patch = self.patch[:2000]
        self.boot("2.0.0")
        files, why = self.update()
        self.assertTrue(why)
        self.assertLess(self.delivered, 8)

    def test_patch_that_the_stream_does_not_have_falls_back(self):
        self.service.files.pop()
        self.service.files.append(b"")
        self.assertIn("transfer", self.update()[1])

    def test_no_space_for_the_patch_falls_back(self):
        class Full:
            SEEK_END = 2

            @staticmethod
            def statvfs(path):
                return 1 << 20, 4096, 99, 99, 0 if path.endswith("/patch") else 99, 9

        real, space.os = space.os, Full
        try:
            self.assertEqual(self.update()[1], "ValueError: no space")
        finally:
            space.os = real

    def test_no_memory_restarts_once_and_then_falls_back(self):
        def none(*_):
            raise MemoryError

        real, delta.apply = delta.apply, none
        try:
            self.assertRaises(MemoryError, lambda: self.run_job(execution=2, document=self.document(), data={}))
            self.boot("2.0.0")
            self.assertEqual(self.update(data={"restarts": 1})[1], "out of memory")
        finally:
            delta.apply = real

    def test_application_that_never_came_as_an_artifact_gets_the_whole(self):
        self.artifact, self.first = self.first, self.artifact
        Case.tearDown(self)
        Case.setUp(self)
        self.patch = b"x" * 100
        self.boot("1.0.0")
        self.reset(document=self.document(), data={})
        self.assertEqual([details.get("delta") for _, details in self.job.reports][0], "none from what runs")

    def stop_after(self, count, document=None):
        """Run until `count` data messages were sent."""
        job = Context(self.agent, document or self.document(), "job", 2)
        job.data = {}
        asyncio.run(self.service.until(count, ota.run(job)))
        self.boot("2.0.0", "power-on")

    def test_no_block_of_the_patch_comes_twice(self):
        self.assertEqual((len(self.patch) - 1) // BLOCK, 2)
        self.stop_after(3)  # envelope, hash list, a block
        self.stop_after(1)
        files, why = self.update()
        self.assertEqual((why, self.delivered), (None, 1))

    def test_nothing_of_a_patch_that_is_there_comes_again(self):
        def die(*_):
            raise Reset

        real, delta.apply = delta.apply, die
        try:
            self.reset(execution=2, document=self.document(), data={})
        finally:
            delta.apply = real
        self.boot("2.0.0", "power-on")
        files, why = self.update()
        self.assertEqual((why, self.delivered), (None, 0))

    def test_patch_that_failed_is_not_fetched_again(self):
        self.patch = self.patch[:50] + b"bad" + self.patch[53:]
        self.boot("2.0.0")
        self.stop_after(2 + 3 + 2)
        files, why = self.update()
        self.assertTrue(why)
        self.assertEqual(set(files), {2})

    def test_what_is_left_of_another_patch_is_not_used(self):
        with open(self.root + "/patch", "wb") as f:
            f.write(patch(b"1" * 8192, b"1" * 8192, [(0, 8192, 0)], IDS))
        self.assertEqual(self.update()[1], None)


class Documents(unittest.TestCase):
    def test_wrong_members_are_named(self):
        good = {"from": "ab" * 32, "bytes": 200, "file": 3}
        document = {"artifact": {"payload": 1000}, "deltas": [good]}
        delta.check(document)
        for change in (
            {"from": "ab"},
            {"from": 7},
            {"from": "xy" * 32},
            {"bytes": 0},
            {"bytes": 1000},
            {"bytes": "200"},
            {"bytes": True},
            {"file": 2},
            {"file": 256},
            {"file": "3"},
            {"file": None},
        ):
            entry = dict(good)
            entry.update(change)
            document["deltas"] = [good, entry]
            with self.assertRaises(JobRejected) as caught:
                delta.check(document)
            self.assertIn("deltas[1]", str(caught.exception), str(change))
        for bad in (None, 7, [7], [None], {"a": 1}):
            document["deltas"] = bad
            self.assertRaises(JobRejected, lambda: delta.check(document))

    def test_with_urls_each_needs_its_own(self):
        document = {"artifact": {"payload": 1000}, "urls": {}}
        entry = {"from": "ab" * 32, "bytes": 200, "url": "https://x/y"}
        document["deltas"] = [entry]
        delta.check(document)
        self.assertEqual(entry["file"], "https://x/y")
        for url in ("http://x/y", "", 3, None):
            document["deltas"] = [{"from": "ab" * 32, "bytes": 200, "file": 3, "url": url}]
            self.assertRaises(JobRejected, lambda: delta.check(document))
