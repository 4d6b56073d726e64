# SPDX-License-Identifier: Apache-2.0
"""Firmware of an ESP32 in app partitions: what the agent makes of otadata, and what it writes where and when.

The chip is hil/esp32_flash.py, whose records and choices are ESP-IDF's; here it is held to bytes from elsewhere too.
"""

import asyncio
import binascii
import hashlib
import sys
import unittest

from edgeagent import compat, space
from edgeagent.errors import UpdateError
from edgeagent.ota import delta, trial
from hil import esp32_tables as esp
from hil.cuts.board.patch import patch
from hil.esp32_flash import Chip, Memory
from hil.esp32_image import app_image

ROOT = "test_partition"
OLD = app_image("v1", "well", 5000)
NEW = app_image("v2", "well", 9000)
TABLE = (
    ("otadata", esp.DATA, esp.OTADATA, 0xD000, 0x2000),
    ("ota_0", esp.APP, esp.OTA_0, 0x10000, 0x10000),
    ("ota_1", esp.APP, esp.OTA_0 + 1, 0x20000, 0x10000),
)
FACTORY = (("factory", esp.APP, esp.FACTORY, 0x30000, 0x10000),)
THIRD = (("ota_2", esp.APP, esp.OTA_0 + 2, 0x30000, 0x10000),)
PLACES = {"ota_0": 0x10000, "ota_1": 0x20000, "ota_2": 0x30000, "factory": 0x30000}


def sha(data):
    return hashlib.sha256(data).digest()


class Manifest:
    def __init__(self, image):
        self.size = len(image)
        self.sha256 = sha(image)
        self.blocks = (len(image) + 4095) // 4096
        self.files = [["micropython.bin", len(image), None, None]]
        self.hashes = b"".join([sha(image[at : at + 4096]) for at in range(0, len(image), 4096)] + [sha(image)])
        self.blocks_sha256 = sha(self.hashes)


class Port:
    resets = 0

    def reset_cause(self):
        return "watchdog"

    def reset(self):
        self.resets += 1


class Case(unittest.TestCase):
    def setUp(self):
        compat.remove_tree(ROOT)
        self.port = Port()

    def tearDown(self):
        compat.remove_tree(ROOT)
        sys.modules.pop("esp32", None)

    def chip(self, records=(), table=TABLE, **images):
        """A chip that was switched on. images: by label, OLD in ota_0 if none are given."""
        data = bytearray(b"\xff" * 0x40000)
        data[0x8000:0x8C00] = esp.table_bytes(table)
        for sector, raw in enumerate(records):
            data[0xD000 + 4096 * sector : 0xD020 + 4096 * sector] = raw
        images = images or {"ota_0": OLD}
        for label in images:
            data[PLACES[label] : PLACES[label] + len(images[label])] = images[label]
        self.flash = Memory(data)
        return self.restart()

    def restart(self):
        self.one = sys.modules["esp32"] = Chip(self.flash)
        self.one.power_on()
        return self.one

    def target(self):
        from edgeagent.ota.partition import Firmware

        return Firmware(ROOT + "/firmware", self.port)

    def code(self, act, *arguments):
        try:
            waiting = act(*arguments)
            if hasattr(waiting, "send"):
                asyncio.run(waiting)
        except UpdateError as error:
            return error.code
        return None

    def filled(self, image=NEW, artifact="aa"):
        """A target whose other partition holds `image`, read back."""
        target = self.target()
        place = target.prepare(artifact)
        manifest = Manifest(image)
        writer = target.writer(place, manifest, Hashes(manifest.hashes))
        for number in range(manifest.blocks):
            writer.block(number, image[number * 4096 : number * 4096 + 4096])
        asyncio.run(writer.finish())
        target.complete(artifact, "v2", 3)
        return target

    def update(self, image, artifact):
        """As a job does it, to the confirmation."""
        asyncio.run(self.filled(image, artifact).activate("v2", "job/1", 60))
        self.restart()
        self.target().confirm()


class Hashes:
    """The file of the hash list."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def seek(self, at):
        self.at = at

    def read(self, size):
        found = self.data[self.at : self.at + size]
        self.at += len(found)
        return found


class TestModel(Case):
    def test_a_record_has_the_bytes_of_esp_idf(self):
        # Of a device with MicroPython; otatool.py makes the same CRC.
        self.assertEqual(binascii.hexlify(esp.record(1, esp.VALID)), b"01000000" + b"ff" * 20 + b"020000009a984347")
        self.assertEqual(esp.crc(2), 0x55F63774)

    def test_the_table_of_micropython_has_the_bytes_of_gen_esp32part(self):
        # SHA-256 of what gen_esp32part.py makes of ports/esp32/partitions-4MiB-ota.csv.
        made = esp.table_bytes([entry for entry in esp.OTA_TABLE if entry[0] != "vfs"])
        wanted = b"0241fa0d2e573dee86756e39fb4181e61ff7218087619cab565b602df55954d6"
        self.assertEqual(binascii.hexlify(sha(made)), wanted)
        self.assertEqual(esp.read_table(made)[3], ("ota_0", 0, 16, 0x10000, 0x180000))

    def test_the_first_boot_writes_the_first_record(self):
        one = self.chip()
        self.assertEqual(one.read(0xD000, 32), esp.record(1, esp.VALID))

    def test_a_new_image_gets_one_boot(self):
        one = self.chip([esp.record(1, esp.VALID), esp.record(2, esp.NEW)], ota_0=OLD, ota_1=NEW)
        self.assertEqual((one.running[0], one.records()[1].state), ("ota_1", esp.PENDING))
        one = self.restart()
        self.assertEqual((one.running[0], one.records()[1].state), ("ota_0", esp.ABORTED))

    def test_writeblocks_erases_unless_it_has_an_offset(self):
        part = self.chip().Partition("ota_1")
        part.writeblocks(1, b"\x0f" * 4096)
        part.writeblocks(1, b"\xf3" * 4, 8)
        found = bytearray(12)
        part.readblocks(1, found)
        self.assertEqual(bytes(found), b"\x0f" * 8 + b"\x03" * 4)
        part.writeblocks(1, b"\xf3" * 4096)
        part.readblocks(1, found)
        self.assertEqual(bytes(found), b"\xf3" * 12)
        self.assertEqual((part.ioctl(4, 0), part.ioctl(5, 0), part.ioctl(6, 1)), (16, 4096, 0))
        part.readblocks(1, found)
        self.assertEqual(bytes(found), b"\xff" * 12)

    def test_errors_are_those_of_esp_idf(self):
        part = self.chip().Partition("ota_1")
        for code, act in (
            (-5379, part.set_boot),  # ESP_ERR_OTA_VALIDATE_FAILED: there is no image
            (-260, lambda: part.writeblocks(0, b"x")),  # ESP_ERR_INVALID_SIZE
            (-260, lambda: part.readblocks(15, bytearray(4097))),
            (-258, lambda: part.ioctl(6, 17)),  # ESP_ERR_INVALID_ARG
            (2, lambda: self.one.Partition("none")),
        ):
            try:
                act()
                found = None
            except OSError as error:
                found = error.args[0]
            self.assertEqual(found, code)

    def test_without_otadata_nothing_can_be_marked(self):
        one = self.chip((), FACTORY, factory=OLD)
        try:
            one.Partition.mark_app_valid_cancel_rollback()
            found = None
        except OSError as error:
            found = error.args[0]
        self.assertEqual(found, -261)


class TestOtadata(Case):
    def test_every_pair_of_records_boots_and_is_understood(self):
        """5x5 states, each CRC good or bad, which of them is newer, which image is broken, a factory image or none."""
        for one in esp.STATES:
            for two in esp.STATES:
                for bad in range(4):
                    for newer in (0, 1):
                        for broken in (None, "ota_0", "ota_1"):
                            for table in (TABLE, TABLE + FACTORY):
                                self.pair((one, two), bad, newer, broken, table)

    def pair(self, states, bad, newer, broken, table):
        case = "%s bad %d newer %d, %s broken, %d entries" % (states, bad, newer, broken, len(table))
        seqs = (3, 2) if newer == 0 else (1, 2)
        records = [
            esp.record(seqs[n], states[n], check=0x12345678 if bad >> n & 1 else esp.crc(seqs[n])) for n in (0, 1)
        ]
        images = {"ota_0": OLD, "ota_1": NEW, "factory": OLD}
        if len(table) == 3:
            images.pop("factory")
        if broken:
            images[broken] = b"\0"
        one = self.chip(records, table, **images)
        self.assertTrue(one.running, case)
        target = self.target()
        selected = target.selected()[1]
        self.assertEqual(selected or one.default()[0], one.selected()[0], case)
        if broken != one.selected()[0]:
            self.assertEqual(target.own, one.selected()[0], case)
        now = one.running[0]
        if self.code(target.prepare, "aa") == "busy":
            self.assertEqual(target.selected()[1:], (now, esp.PENDING), case)
            return
        self.assertTrue(target.selected()[1:] != (now, esp.PENDING), case)
        # However far the download gets, what runs now runs again, and the rest as well while it is not whole.
        at = PLACES[target.next]
        for content in (b"\xff" * 0x10000, app_image("v3", "well", 3000)):
            self.flash.data[at : at + len(content)] = content
            self.assertEqual(self.restart().running[0], now, case)

    def test_what_runs_although_something_else_is_selected_is_made_the_selected_one_first(self):
        broken = b"\x00" * 100
        one = self.chip([esp.record(1, esp.ABORTED), esp.record(2, esp.VALID)], ota_0=OLD, ota_1=broken)
        self.assertEqual((one.running[0], one.selected()[0]), ("ota_0", "ota_1"))
        self.target().prepare("aa")
        self.assertEqual(one.selected()[0], "ota_0")
        self.assertEqual(one.records()[esp.active(one.records())].state, esp.VALID)


class TestFirmware(Case):
    def test_a_device_without_a_second_partition_says_so(self):
        self.chip((), FACTORY, factory=OLD)
        self.assertEqual(self.code(self.target), "partition")

    def test_an_unconfirmed_image_that_runs_keeps_its_way_back(self):
        self.chip([esp.record(1, esp.VALID), esp.record(2, esp.NEW)], ota_0=OLD, ota_1=NEW)
        self.assertEqual(self.code(self.target().prepare, "aa"), "busy")

    def test_an_unconfirmed_image_without_a_way_back_is_confirmed(self):
        self.chip([esp.record(1, esp.NEW)])
        target = self.target()
        self.assertEqual(target.selected()[1:], ("ota_0", esp.PENDING))
        self.assertEqual(target.prepare("aa"), "ota_1")
        self.assertEqual(target.selected()[1:], ("ota_0", esp.VALID))

    def test_the_version_is_that_of_the_app_descriptor(self):
        self.chip()
        self.assertEqual(self.target().version(None), "v1")

    def test_nothing_is_erased_before_the_header_was_seen(self):
        self.chip(ota_0=OLD, ota_1=OLD)
        target = self.target()
        target.prepare("aa")
        manifest = Manifest(NEW)
        writer = target.writer("ota_1", manifest, Hashes(manifest.hashes))
        before = bytes(self.flash.data)
        self.assertTrue(writer.block(1, NEW[4096:8192]))  # it has to come again
        self.assertEqual(bytes(self.flash.data), before)
        self.assertTrue(not writer.block(0, NEW[:4096]))
        self.assertTrue(not writer.block(2, NEW[8192:]))
        self.assertTrue(not writer.block(1, NEW[4096:8192]))
        asyncio.run(writer.finish())
        self.assertEqual(self.one.read(0x20000, len(NEW)), NEW)

    def test_images_that_this_chip_cannot_start_are_refused_untouched(self):
        bootloader = NEW[:32] + b"\x50\0\0\0" + NEW[36:]
        for image in (app_image("v2", "well", 9000, "esp32s3"), bootloader, b"\0" + NEW[1:], b"\xff" * 9000):
            self.chip()
            target = self.target()
            target.prepare("aa")
            manifest = Manifest(image)
            writer = target.writer("ota_1", manifest, Hashes(manifest.hashes))
            self.assertEqual(self.code(writer.block, 0, image[:4096]), "image")
            self.assertEqual(self.one.read(0x20000, 0x10000), b"\xff" * 0x10000)
            # Nor does it pass if it is there already.
            self.flash.data[0x20000 : 0x20000 + len(image)] = image
            self.assertEqual(self.code(lambda: asyncio.run(writer.resume())), "image")  # noqa: B023

    def test_an_image_that_does_not_fit_is_refused(self):
        self.chip()
        target = self.target()
        target.prepare("aa")
        manifest = Manifest(b"\xe9" * 0x10001)
        self.assertEqual(self.code(target.writer, "ota_1", manifest, Hashes(manifest.hashes)), "space")

    def test_a_hash_list_of_another_artifact_is_refused(self):
        self.chip()
        manifest = Manifest(NEW)
        for data in (b"", manifest.hashes[:-1], manifest.hashes + b"x", b"\0" + manifest.hashes[1:]):
            self.assertEqual(self.code(self.target().writer, "ota_1", manifest, Hashes(data)), "bundle")

    def test_a_block_that_was_not_signed_is_not_written(self):
        self.chip()
        manifest = Manifest(NEW)
        writer = self.target().writer("ota_1", manifest, Hashes(manifest.hashes))
        self.assertEqual(self.code(writer.block, 0, NEW[:4095] + b"x"), "block-hash")
        self.assertEqual(self.one.read(0x20000, 4096), b"\xff" * 4096)

    def test_resuming_finds_the_blocks_that_are_whole(self):
        self.chip()
        self.flash.data[0x20000 : 0x20000 + len(NEW)] = NEW
        self.flash.data[0x21005] ^= 4
        manifest = Manifest(NEW)
        writer = self.target().writer("ota_1", manifest, Hashes(manifest.hashes))
        asyncio.run(writer.resume())
        self.assertEqual(writer.have[0], 0b101)
        self.assertEqual(self.code(lambda: asyncio.run(writer.finish())), "file-hash")

    def test_a_confirmed_update_is_valid_in_otadata_and_in_the_record(self):
        self.chip()
        target = self.filled()
        asyncio.run(target.activate("v2", "job/1", 60, "v1"))
        self.assertEqual(self.one.read(0xE000, 32), esp.record(2, esp.NEW))
        one = self.restart()
        target = self.target()
        status = trial.status(target.root)
        self.assertEqual((one.running[0], status["active"], status["boots"]), ("ota_1", "ota_1", 1))
        self.assertTrue(target.runs(status))
        target.confirm()
        self.assertEqual(one.read(0xE000, 32), esp.record(2, esp.VALID))
        status = trial.status(target.root)
        self.assertEqual((status["state"], status["floor"], status["previous_version"]), ("confirmed", 3, "v1"))

    def test_an_image_that_does_not_verify_ends_the_trial_with_the_error_of_set_boot(self):
        self.chip()
        target = self.filled()
        self.flash.data[0x21000] ^= 1  # decayed since it was read back
        self.assertEqual(self.code(target.activate, "v2", "job/1", 60), "partition")
        status = trial.status(target.root)
        self.assertEqual(status["state"], "rolled_back")
        self.assertTrue("-5379" in status["reason"], status["reason"])
        self.assertEqual(self.restart().running[0], "ota_0")

    def test_an_interrupted_trial_is_tried_three_times_and_says_what_became_of_each(self):
        self.chip()
        asyncio.run(self.filled().activate("v2", "job/1", 60))
        for tries in (1, 2, 3):
            self.assertEqual(self.restart().running[0], "ota_1")
            self.assertEqual(self.restart().running[0], "ota_0")
            target = self.target()
            self.assertTrue(not target.runs(trial.status(target.root)))
            self.assertEqual(self.port.resets, min(tries, 2))
        status = trial.status(target.root)
        self.assertEqual(status["state"], "rolled_back")
        tried = "rolled back by the bootloader (watchdog)"
        self.assertEqual(status["reason"], "interrupted: " + ", ".join([tried] * 3))

    def test_a_mark_that_was_cut_is_noticed_as_a_lost_record(self):
        self.chip()
        asyncio.run(self.filled().activate("v2", "job/1", 60))
        self.restart()
        self.one.erase(0xE000, 4096)  # as far as mark_app_valid had come
        self.assertEqual(self.restart().running[0], "ota_0")
        target = self.target()
        self.assertTrue(not target.runs(trial.status(target.root)))
        self.assertEqual(trial.status(target.root)["causes"], ["boot record lost (watchdog)"])
        self.assertEqual(self.restart().running[0], "ota_1")

    def test_what_the_bootloader_does_not_watch_is_counted(self):
        """A boot record whose state was torn, or a bootloader without rollback: it would start the image for ever."""
        self.chip()
        asyncio.run(self.filled().activate("v2", "job/1", 60))
        self.one.erase(0xE000, 4096)
        self.one.program(0xE000, esp.record(2, 0x100))
        found = []
        for _ in range(3):
            self.assertEqual(self.restart().running[0], "ota_1")
            target = self.target()
            found.append(target.runs(trial.status(target.root)))
        self.assertEqual(found, [True, True, False])
        self.assertEqual((trial.status(target.root)["state"], self.port.resets), ("rolled_back", 1))

    def test_dropping_an_image_boots_the_other_one_whatever_its_state(self):
        for state in esp.STATES:
            if state not in (esp.INVALID, esp.ABORTED):
                self.chip([esp.record(1, esp.VALID), esp.record(2, state)], ota_0=OLD, ota_1=NEW)
                self.target().drop("ota_1")
                one = self.restart()
                self.assertEqual((one.running[0], one.records()[0].state), ("ota_0", esp.VALID))

    def test_a_build_that_cannot_mark_is_not_taken_for_marked(self):
        self.chip()
        asyncio.run(self.filled().activate("v2", "job/1", 60))
        one = self.restart()

        class Old(one.Partition):
            @classmethod
            def mark_app_valid_cancel_rollback(cls):
                raise OSError(-261)

        one.Partition = Old
        self.assertEqual(self.code(self.target().confirm), "partition")
        self.assertEqual(trial.status(ROOT + "/firmware")["state"], "trial")


class TestKept(Case):
    """The way back after a confirmed update."""

    def kept(self):
        return asyncio.run(self.target().kept())

    def back(self):
        """Go back, to the confirmation."""
        target = self.target()
        asyncio.run(target.kept())
        asyncio.run(target.activate("v1", "back/1", 60, "v2"))
        self.restart()
        self.target().confirm()

    def test_the_image_before_is_kept_with_its_version_and_level(self):
        self.chip()
        self.update(NEW, "a1")
        self.assertEqual(self.kept(), ("v1", 0))
        self.update(OLD, "a2")
        self.assertEqual(self.kept(), ("v2", 3))

    def test_asking_writes_nothing(self):
        self.chip()
        self.update(NEW, "a1")
        before = bytes(self.flash.data), trial.status(ROOT + "/firmware")
        self.kept()
        self.assertEqual((bytes(self.flash.data), trial.status(ROOT + "/firmware")), before)

    def test_nothing_is_kept_before_the_first_update(self):
        self.chip(ota_0=OLD, ota_1=NEW)
        self.assertEqual(self.code(self.kept), "slot")

    def test_going_back_is_a_trial_that_can_be_confirmed(self):
        self.chip()
        self.update(NEW, "a1")
        target = self.target()
        asyncio.run(target.kept())
        asyncio.run(target.activate("v1", "back/1", 60, "v2"))
        one = self.restart()
        target = self.target()
        status = trial.status(target.root)
        self.assertEqual((one.running[0], status["active"], status["state"]), ("ota_0", "ota_0", "trial"))
        self.assertTrue(target.runs(status))
        target.confirm()
        self.assertEqual(self.restart().running[0], "ota_0")
        self.assertEqual(trial.status(target.root)["floor"], 3)

    def test_a_second_time_it_goes_forth_again(self):
        self.chip()
        self.update(NEW, "a1")
        self.back()
        self.assertEqual(self.target().old(), None)
        self.assertEqual(self.kept(), ("v2", 3))
        self.back()
        self.assertEqual((self.one.running[0], self.target().old().artifact), ("ota_1", "a1"))

    def test_an_older_image_that_is_interrupted_too_often_makes_room_for_the_one_that_was_left(self):
        self.chip()
        self.update(NEW, "a1")
        target = self.target()
        asyncio.run(target.kept())
        asyncio.run(target.activate("v1", "back/1", 60, "v2"))
        for _ in range(3):
            self.assertEqual(self.restart().running[0], "ota_0")
            self.assertEqual(self.restart().running[0], "ota_1")
            self.assertTrue(not self.target().runs(trial.status(target.root)))
        status = trial.status(target.root)
        self.assertEqual((status["state"], status["active"]), ("rolled_back", "ota_1"))
        self.assertEqual(self.target().old().artifact, "a1")
        self.assertEqual(self.code(self.kept), "rolled-back")

    def test_an_image_that_failed_its_trial_is_not_kept(self):
        self.chip()
        asyncio.run(self.filled(NEW, "a1").activate("v2", "job/1", 60))
        self.restart()
        trial.failed(ROOT + "/firmware", "enough")
        self.restart()
        self.assertEqual(self.code(self.kept), "rolled-back")

    def test_one_erased_block_of_a_download_and_nothing_is_kept(self):
        self.chip()
        self.update(NEW, "a1")
        target = self.target()
        place = target.prepare("a2")
        self.assertEqual(self.kept(), ("v1", 0))  # nothing has been written yet
        manifest = Manifest(app_image("v3", "well", 9000))
        target.writer(place, manifest, Hashes(manifest.hashes))
        target.other.ioctl(6, 0)
        self.assertEqual(self.code(self.kept), "slot")

    def test_a_complete_download_that_was_never_activated_is_not_what_was_kept(self):
        self.chip()
        self.update(NEW, "a1")
        self.filled(app_image("v3", "well", 5000), "a3")
        self.assertEqual(self.code(self.kept), "slot")

    def test_any_bit_of_the_partition_counts(self):
        self.chip()
        self.update(NEW, "a1")
        for at in (0x10000, 0x10000 + len(OLD), 0x1FFFF):
            self.flash.data[at] ^= 16
            self.assertEqual(self.code(self.kept), "slot")
            self.flash.data[at] ^= 16
        self.assertEqual(self.kept(), ("v1", 0))

    def test_the_device_lives_on_while_whole_partitions_are_read(self):
        """At most 16 KB between two turns of the other tasks, before the restart and when going back is asked for."""
        self.chip()
        self.update(NEW, "a1")
        turns = [0]
        read = {}  # bytes, by turn
        real = self.one.Partition.readblocks

        def counted(part, block, buffer, offset=0):
            read[turns[0]] = read.get(turns[0], 0) + len(buffer)
            return real(part, block, buffer, offset)

        async def others():
            while True:
                turns[0] += 1
                await asyncio.sleep(0)

        async def during(act, *arguments):
            task = asyncio.create_task(others())
            await asyncio.sleep(0)
            await act(*arguments)
            task.cancel()

        target = self.target()
        self.one.Partition.readblocks = counted
        for act in ((target.kept,), (target.activate, "v1", "back/1", 60, "v2")):
            read.clear()
            asyncio.run(during(*act))
            self.assertTrue(sum(read.values()) >= 0x10000, read)  # one partition
            self.assertTrue(max(read.values()) <= 16384, read)

    def test_not_if_another_image_runs_than_the_record_says(self):
        """Somebody has erased otadata: what runs is what would be gone back to."""
        self.chip()
        self.update(NEW, "a1")
        self.one.erase(0xE000, 4096)
        self.assertEqual(self.restart().running[0], "ota_0")
        self.assertEqual(self.code(self.kept), "slot")

    def test_not_while_what_runs_is_not_confirmed(self):
        self.chip()
        self.update(NEW, "a1")
        self.one.erase(0xE000, 4096)
        self.one.program(0xE000, esp.record(2, esp.NEW))  # by a cable
        self.assertEqual(self.restart().running[0], "ota_1")
        self.assertEqual(self.code(self.kept), "busy")

    def test_of_three_partitions_it_is_the_one_that_was_left_and_not_the_next_one(self):
        self.chip((), TABLE + THIRD)
        self.update(NEW, "a1")
        self.assertEqual(self.kept(), ("v1", 0))
        self.back()
        self.assertEqual(self.one.running[0], "ota_0")
        self.assertEqual(self.kept(), ("v2", 3))

    def test_of_three_partitions_an_interrupted_rollback_is_tried_again_with_the_same_image(self):
        self.chip([esp.record(1, esp.VALID)], TABLE + THIRD, ota_0=OLD, ota_2=app_image("v0", "well", 3000))
        self.update(NEW, "a1")
        target = self.target()
        asyncio.run(target.kept())
        asyncio.run(target.activate("v1", "back/1", 60, "v2"))
        self.assertEqual(self.restart().running[0], "ota_0")
        self.assertEqual(self.restart().running[0], "ota_1")  # power was lost
        target = self.target()
        self.assertFalse(target.runs(trial.status(target.root)))
        self.assertEqual((self.port.resets, self.restart().running[0]), (1, "ota_0"))
        target = self.target()
        self.assertTrue(target.runs(trial.status(target.root)))

    def test_an_image_of_the_factory_is_refused_as_no_record_is_for_its_trial(self):
        self.chip((), TABLE + FACTORY, factory=OLD)
        self.update(NEW, "a1")
        self.assertEqual(self.one.running[0], "ota_0")
        self.assertEqual(self.code(self.kept), "slot")
        self.assertEqual(self.restart().running[0], "ota_0")

    def test_what_runs_is_booted_again_if_otadata_is_not_as_it_has_to_be(self):
        self.chip((), TABLE + FACTORY, factory=OLD)
        self.update(NEW, "a1")
        target = self.target()
        target.turn(self.one.Partition.find(0, 0)[0])
        target.complete(None, "v1", 0)
        self.assertEqual(self.code(target.activate, "v1", "back/1", 60), "partition")
        self.assertEqual(trial.status(target.root)["state"], "rolled_back")
        one = self.restart()
        self.assertEqual((one.running[0], self.target().selected()[1:]), ("ota_0", ("ota_0", esp.VALID)))


class TestDelta(Case):
    def runs(self):
        """The id of what runs, and whether its bytes are read from where it is."""
        old = self.target().old()
        image = OLD if self.one.running[0] == "ota_0" else NEW
        if not old:
            return None
        part = bytearray(1000)
        old.readinto(3900, memoryview(part))  # over the end of a block
        self.assertEqual(bytes(part), image[3900:4900])
        old.close()
        return old.artifact

    def test_it_is_known_what_runs_once_an_update_has_brought_it(self):
        self.chip()
        self.assertEqual(self.runs(), None)
        self.update(NEW, "a1")
        self.assertEqual(self.runs(), "a1")
        self.update(OLD, "a2")
        self.assertEqual(self.runs(), "a2")

    def test_while_another_is_on_trial_and_after_it_failed_it_is_the_one_that_runs(self):
        self.chip()
        self.update(NEW, "a1")
        asyncio.run(self.filled(OLD, "a2").activate("v2", "job/2", 60))
        self.assertEqual(self.runs(), "a1")
        self.assertEqual(self.restart().running[0], "ota_0")
        self.assertEqual(self.runs(), "a2")
        self.restart()  # the bootloader goes back
        self.assertEqual(self.runs(), "a1")
        trial.failed(ROOT + "/firmware", "enough")
        self.assertEqual(self.runs(), "a1")

    def test_after_a_rollback_to_the_image_of_the_factory_nothing_is_known(self):
        self.chip()
        asyncio.run(self.filled(NEW, "a1").activate("v2", "job/1", 60))
        self.restart()
        trial.failed(ROOT + "/firmware", "enough")
        self.restart()
        self.assertEqual(self.runs(), None)

    def test_of_many_partitions_two_are_remembered(self):
        """The record has 2048 bytes, the chip up to 16 such partitions."""
        self.chip((), TABLE + (("ota_2", esp.APP, esp.OTA_0 + 2, 0x30000, 0x10000),))
        for number in (1, 2, 3):
            self.update(app_image("v%d" % number, "well", 3000), "a%d" % number)
        found = trial.status(ROOT + "/firmware")["artifacts"]
        self.assertEqual(sorted(found.items()), [("ota_0", "a3"), ("ota_2", "a2")])

    def test_a_read_beyond_the_end_is_an_error(self):
        self.chip()
        self.update(NEW, "a1")
        old = self.target().old()
        self.assertEqual(old.size, 0x10000)
        self.assertRaises(OSError, lambda: old.readinto(0xFFFF, memoryview(bytearray(2))))

    def by_patch(self, room, damage=0):
        """(why there was none, what the other partition holds then): from NEW to `third`, with `room` bytes of files.

        damage: flips a bit of what runs.
        """
        third = app_image("v3", "well", 9000)
        compat.remove_tree(ROOT)
        self.chip()
        self.update(NEW, "a1" * 32)
        self.flash.data[0x20000 + 5000] ^= damage
        raw = patch(NEW, third, [(0, len(third), 0)], b"\xa1" * 16 + b"\xa3" * 16)
        target = self.target()
        manifest = Manifest(third)
        writer = target.writer(target.prepare("a3" * 32), manifest, Hashes(manifest.hashes))

        class Job:
            document = {"deltas": [{"from": "a1" * 32, "bytes": len(raw), "file": 3}]}
            data: "dict[str, int]" = {}

            class agent:
                client = None

        async def fetch(job, stream, file, size, sink, have, tick):
            for number in range((size + 4095) // 4096):
                sink(number, raw[number * 4096 : number * 4096 + 4096])

        class Small:
            @staticmethod
            def statvfs(path):
                return 1, 1, room, room, room, 9

        async def run():
            await writer.resume()
            # A patch that is a little larger than the payload, since its bytes are not packed.
            return await delta.run(
                Job(), ROOT + "/patch", target, "a3" * 32, len(third), len(raw) + 1, writer, fetch, None
            )

        real, space.os = space.os, Small
        try:
            why = asyncio.run(run())
        finally:
            space.os = real
        return why, self.one.read(0x10000, len(third)) == third, len(raw)

    def test_a_patch_makes_the_next_image_and_needs_room_for_itself_alone(self):
        size = self.by_patch(1 << 20)[2]
        self.assertEqual(self.by_patch(size)[:2], ("", True))
        self.assertEqual(self.by_patch(size - 1)[:2], ("ValueError: no space", False))

    def test_a_patch_to_what_is_not_what_it_was_is_noticed(self):
        self.assertEqual(self.by_patch(1 << 20, 4)[:2], ("UpdateError: block-hash: block 1", False))


if __name__ == "__main__":
    unittest.main()
