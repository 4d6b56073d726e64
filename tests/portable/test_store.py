# SPDX-License-Identifier: Apache-2.0
"""Slots with an index: what the application sees of one, and its payload as the base of a delta."""

import os
import unittest

from edgeagent import compat
from edgeagent.ota import trial
from edgeagent.ota.payload import Payload
from edgeagent.ota.slots import Slots
from edgeagent.ota.store import View, find
from tests.portable.ota_support import contents, damage, entries, fill, fresh, pattern

ENOENT = 2
EROFS = 30
FILES = {
    "app.mpy": b"app",
    "data.bin": pattern(5000),
    "lib/deep/one.mpy": b"one",
    "lib/two.mpy": b"two",
    "empty": b"",
    "lib2/app.mpy": b"app",
}


class Case(unittest.TestCase):
    def setUp(self):
        self.root = fresh("store")
        self.slot = self.root + "/a"
        fill(self.slot, FILES)
        self.view = View(self.slot)

    def tearDown(self):
        compat.remove_tree(self.root)

    def fails(self, code, function, *args):
        with self.assertRaises(OSError) as caught:
            function(*args)
        self.assertEqual(caught.exception.args[0], code)


class Seen(Case):
    def read(self, path):
        with self.view.open(path, "rb") as f:
            return f.read()

    def test_every_file_has_its_content_and_size(self):
        for path, data in FILES.items():
            self.assertEqual(self.read("/" + path), data)
            self.assertEqual(self.view.stat("/" + path)[0] & 0xF000, 0x8000)
            self.assertEqual(self.view.stat("/" + path)[6], len(data))

    def test_folders_are_those_of_the_paths(self):
        for path in ("/", "/lib", "/lib/deep", "/lib2", ""):
            self.assertEqual(self.view.stat(path)[0], 0x4000)

    def test_what_is_not_listed_is_not_there(self):
        # Not a prefix, not a suffix, no name of the store, nothing of the folder a stale version may have left.
        compat.make_dirs(self.slot)
        with open(self.slot + "/app.py", "wb") as f:
            f.write(b"stale")
        for path in (
            "/app.py",
            "/app",
            "/app.mp",
            "/pp.mpy",
            "/deep/one.mpy",
            "/li",
            "/x",
            "/store",
            "/a/app.mpy",
        ):
            self.fails(ENOENT, self.view.stat, path)
            self.fails(ENOENT, self.view.open, path, "rb")
        self.fails(ENOENT, self.view.open, "/" + entries(self.slot)[0][2], "rb")

    def test_a_folder_lists_files_and_folders_once(self):
        def listed(path):
            return sorted([(entry[0], entry[1], entry[3]) for entry in self.view.ilistdir(path)])

        folder, file = 0x4000, 0x8000
        self.assertEqual(
            listed("/"),
            [
                ("app.mpy", file, 3),
                ("data.bin", file, 5000),
                ("empty", file, 0),
                ("lib", folder, 0),
                ("lib2", folder, 0),
            ],
        )
        self.assertEqual(listed("/lib"), [("deep", folder, 0), ("two.mpy", file, 3)])
        self.fails(ENOENT, lambda: list(self.view.ilistdir("/nothing")))

    def test_paths_may_be_relative(self):
        self.view.chdir("/lib")
        self.assertEqual(self.view.getcwd(), "/lib")
        self.assertEqual(self.read("two.mpy"), b"two")
        self.assertEqual(self.read("./deep/../../app.mpy"), b"app")
        self.assertEqual(self.read("../../../app.mpy"), b"app")
        self.fails(ENOENT, self.view.chdir, "nothing")
        self.assertEqual(self.view.getcwd(), "/lib")

    def test_nothing_can_be_written(self):
        before = contents(self.root)
        for mode in ("w", "wb", "a", "r+", "r+b", "x"):
            self.fails(EROFS, self.view.open, "/app.mpy", mode)
            self.fails(EROFS, self.view.open, "/new", mode)
        for function in (self.view.remove, self.view.mkdir, self.view.rmdir):
            self.fails(EROFS, function, "/app.mpy")
        self.fails(EROFS, self.view.rename, "/app.mpy", "/new")
        self.assertEqual(contents(self.root), before)

    def test_lines_are_found_wherever_they_lie(self):
        # Paths of all lengths: a line falls on every place of the pieces that are read.
        for start in range(1, 200, 7):
            names = ["%s%03d" % ("n" * ((start + n * 13) % 60), n) for n in range(100)]
            fill(self.slot, {name: name.encode() for name in names})
            for name in names:
                found = find(self.slot + ".idx", "\n%s " % name)
                self.assertEqual(found[:2], [name, str(len(name))])
                self.assertTrue(find(self.slot + ".idx", " %s\n" % found[2]))

    def test_the_longest_line_is_found(self):
        long = "/".join(["x" * 49] * 4)
        for before in range(200, 300):
            fill(self.slot, {"a" * (before % 60 + 1): b"", "b" * (before // 2): b"1", long: b"2", "z": b"3"})
            self.assertEqual(find(self.slot + ".idx", "\n%s " % long)[0], long)
            self.assertEqual(find(self.slot + ".idx", "\nz ")[0], "z")

    def test_on_a_board_it_is_imported_from(self):
        if not compat.MICROPYTHON:
            return
        import sys

        import vfs

        from edgeagent.ota.store import mount

        files = {"shown.py": b"from inner.part import VALUE\n", "inner/part.py": b"VALUE = 7\n", "text": b"seen"}
        fill(self.slot, files)
        folder = mount(os.getcwd() + "/" + self.slot)
        sys.path.insert(0, folder)
        try:
            import shown

            self.assertEqual(shown.VALUE, 7)
            self.assertEqual(sorted(os.listdir(folder)), ["inner", "shown.py", "text"])
            with open(folder + "/text") as f:
                self.assertEqual(f.read(), "seen")
            self.fails(EROFS, open, folder + "/text", "w")
            self.fails(EROFS, os.remove, folder + "/text")
        finally:
            sys.path.pop(0)
            vfs.umount(folder)


class Old(Case):
    def record(self):
        trial.write_sealed(self.slot + ".json", {"complete": True, "artifact": "11" * 32, "n": 1})

    def test_the_payload_is_read_at_any_place(self):
        self.record()
        old = Slots(self.root).old()
        whole = b"".join([FILES[name] for name in sorted(FILES)])
        self.assertEqual((old.artifact, old.size), ("11" * 32, len(whole)))
        for at in (0, 1, 2, 3, 4, 2500, 5002, 5003, len(whole) - 3, 7, 0):
            for size in (1, 3, 600, len(whole)):
                part = bytearray(min(size, len(whole) - at))
                old.readinto(at, memoryview(part))
                self.assertEqual(part, whole[at : at + len(part)])
        old.close()

    def test_beyond_the_end_and_in_a_short_file_it_says_so(self):
        old = Payload(self.slot, "x")
        self.assertRaises(ValueError, old.readinto, old.size - 1, memoryview(bytearray(2)))
        with open(
            self.root + "/store/" + [entry[2] for entry in entries(self.slot) if entry[0] == "data.bin"][0], "wb"
        ):
            pass
        self.assertRaises(ValueError, old.readinto, 100, memoryview(bytearray(2)))
        old.close()

    def test_a_plain_folder_and_an_unknown_artifact_have_none(self):
        self.assertIsNone(Slots(self.root).old())
        self.record()
        os.unlink(self.slot + ".idx")
        self.assertIsNone(Slots(self.root).old())


class Whole(Case):
    def test_any_flipped_byte_of_the_index_makes_the_slot_empty(self):
        self.assertTrue(trial.filled(self.root, "a"))
        for at in range(os.stat(self.slot + ".idx")[6]):
            damage(self.slot + ".idx", at)
            self.assertFalse(trial.filled(self.root, "a"))
            damage(self.slot + ".idx", at)

    def test_a_cut_index_makes_the_slot_empty(self):
        with open(self.slot + ".idx", "rb") as f:
            raw = f.read()
        for size in (0, 8, 9, len(raw) - 1):
            with open(self.slot + ".idx", "wb") as f:
                f.write(raw[:size])
            self.assertFalse(trial.filled(self.root, "a"))

    def test_an_index_wins_over_a_folder(self):
        compat.make_dirs(self.slot)
        with open(self.slot + "/app.py", "wb") as f:
            f.write(b"stale")
        damage(self.slot + ".idx")
        self.assertFalse(trial.filled(self.root, "a"))
        os.unlink(self.slot + ".idx")
        self.assertTrue(trial.filled(self.root, "a"))


if __name__ == "__main__":
    unittest.main()
