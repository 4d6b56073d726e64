# SPDX-License-Identifier: Apache-2.0
"""What is an artifact, who may publish it, and for which device it is."""

import asyncio
import json
import os
import sys
import unittest

from edgeagent import clock, compat
from edgeagent.errors import ConfigError, UpdateError
from edgeagent.ota import trial, verify
from edgeagent.ota.manifest import Manifest, parse_envelope, parse_manifest, read_manifest
from tests.portable.ota_support import FACTS, KEY, RUNTIME, Artifact, Key, envelope, hexed, sha, trust

FILES = [("app.mpy", b"code"), ("lib/data.bin", b"x" * 5000)]


class Case(unittest.TestCase):
    def code(self, code, function, *args):
        with self.assertRaises(UpdateError) as caught:
            result = function(*args)
            if hasattr(result, "send"):
                asyncio.run(result)
        self.assertEqual(caught.exception.code, code)
        return str(caught.exception)


class Envelopes(Case):
    def test_parts_come_back(self):
        artifact = Artifact(FILES)
        manifest, signatures = parse_envelope(artifact.envelope)
        self.assertEqual(manifest, artifact.manifest)
        self.assertEqual([(s[0], s[1], len(s[2])) for s in signatures], [(KEY.id, 1, 64)])

    def test_every_prefix_is_refused(self):
        raw = Artifact(FILES).envelope
        for size in range(len(raw)):
            self.code("envelope", parse_envelope, raw[:size])

    def test_bytes_after_the_end_are_refused(self):
        self.code("envelope", parse_envelope, Artifact(FILES).envelope + b"\x00")

    def test_another_magic_is_refused(self):
        self.code("envelope", parse_envelope, b"EAM2" + Artifact(FILES).envelope[4:])

    def test_more_than_4096_bytes_are_refused(self):
        self.code("envelope", parse_envelope, envelope(b"x" * 4096))

    def test_more_than_8_signatures_are_refused(self):
        self.code("envelope", parse_envelope, envelope(b"x", (KEY,) * 9))


class Shape(Case):
    def refused(self, member, **change):
        artifact = Artifact(FILES)
        artifact.document.update(change)
        return self.code("manifest", parse_manifest, json.dumps(artifact.document).encode()).split(": ")[1] == member

    def test_members_come_back_typed(self):
        manifest = parse_manifest(Artifact(FILES, version="2.1", expires=1900000000, mpy=6).manifest)
        self.assertEqual((manifest.name, manifest.version, manifest.security_version), ("app", "2.1", 1))
        self.assertEqual((manifest.size, manifest.blocks), (5004, 2))
        self.assertEqual((manifest.expires, manifest.mpy), (1900000000, 6))
        self.assertEqual(list(manifest.files), [["app.mpy", 4, None, None], ["lib/data.bin", 5000, None, None]])
        self.assertEqual((manifest.requires, manifest.downgrade, manifest.type), (None, None, None))

    def test_each_member_is_named_when_it_is_wrong(self):
        long = "x" * 65
        for member, values in (
            ("format", (None, 2, "1", True, 1.0)),
            ("name", (None, "", long, 5)),
            ("version", (None, "", long, 5)),
            ("security_version", (None, -1, "1", True, 1 << 31)),
            ("boards", (None, [], [1], [""], "TEST", ["x"] * 33)),
            ("runtime", (None, "", "ruby", ["any"])),
            ("mpy", ("6", 0, True)),
            ("expires", ("never", 0, -1, False, [])),
            ("files", (None, [], {}, "x")),
            ("payload", (None, [], 5)),
            ("requires", ({}, [], "agent", {"agent": 1}, {"agent": ""}, {"agent": long})),
            ("downgrade", ([], {}, "1.0.0", [1], [""], ["x"] * 17)),
            ("type", ("", 5, "x" * 17)),
        ):
            for value in values:
                self.assertTrue(self.refused(member, **{member: value}), (member, value))

    def test_unknown_member_is_refused(self):
        self.assertTrue(self.refused("battery", battery=20))

    def test_permission_to_go_back_must_expire(self):
        self.assertTrue(self.refused("downgrade", downgrade=["3.0.0"]))
        parse_manifest(Artifact(FILES, downgrade=["3.0.0"], expires=1900000000).manifest)

    def test_reading_yields_at_every_file(self):
        artifact = Artifact([("f%d" % n, b"x") for n in range(100)])
        self.assertEqual(len(list(read_manifest(artifact.manifest, Manifest()))), 100)
        self.assertLess(len(artifact.envelope), 4096)

    def test_payload_members_are_checked(self):
        good = Artifact(FILES).document["payload"]
        for member, values in (
            ("size", (None, 0, -1, "5004", 8388609)),
            ("sha256", (None, "", "g" * 64, "00" * 31, 5)),
            ("block", (None, 512, "4096")),
            ("blocks_sha256", (None, "zz")),
        ):
            for value in values:
                changed = dict(good)
                changed[member] = value
                self.assertTrue(self.refused(member, payload=changed), (member, value))

    def test_sum_of_the_files_must_be_the_payload(self):
        self.assertTrue(self.refused("size", files=Artifact(FILES).document["files"][:1]))

    def test_text_that_is_not_json_is_refused(self):
        for raw in (b"", b"{", b"\xff\xfe", b"[]", b"5", b"null"):
            self.code("manifest", parse_manifest, raw)


class Paths(Case):
    def files(self, *paths):
        return Artifact([(path, b"x") for path in paths]).manifest

    def test_paths_that_leave_the_folder_or_hide_in_it_are_refused(self):
        for path in (
            "/etc/passwd",
            "../app.mpy",
            "a/../b",
            "a/./b",
            ".",
            "a//b",
            "a/",
            "",
            "a\\b",
            "c:x",
            "a b",
            "a\x00",
            "a\n",
            "\u00e9",
            "x" * 65,
            "/".join(["d" * 60] * 4),
        ):
            self.code("manifest", parse_manifest, self.files(path))

    def test_path_twice_is_refused(self):
        self.code("manifest", parse_manifest, self.files("a.bin", "a.bin"))

    def test_source_beside_its_bytecode_is_refused(self):
        self.code("manifest", parse_manifest, self.files("app.mpy", "app.py"))
        self.code("manifest", parse_manifest, self.files("lib/app.py", "lib/app.mpy"))
        parse_manifest(self.files("app.py", "lib/app.mpy"))

    def test_file_that_is_a_folder_too_is_refused(self):
        self.code("manifest", parse_manifest, self.files("a", "a/b"))
        self.code("manifest", parse_manifest, self.files("a/b/c", "a/b"))
        parse_manifest(self.files("a/b", "a/c"))

    def test_more_than_128_files_are_refused(self):
        self.code("manifest", parse_manifest, self.files(*["f%d" % n for n in range(129)]))

    def test_entries_of_another_shape_are_refused(self):
        for entry in (None, [], ["a"], ["a", 1, 420, 1], ["a", "1"], ["a", -1], ["a", 1, 512], ["a", 1, "00" * 32]):
            document = Artifact([("a", b"x")]).document
            document["files"] = [entry]
            self.code("manifest", parse_manifest, json.dumps(document).encode())


class Trusting(Case):
    def config_error(self, document):
        with self.assertRaises(ValueError) as caught:
            verify.Trust(document)
        return str(caught.exception)

    def test_keys_are_held_by_their_id(self):
        self.assertEqual(verify.Trust(trust()).keys, {KEY.id: (1, KEY.public)})

    def test_each_member_is_named_when_it_is_wrong(self):
        for change, field in (
            ({"threshold": 0}, "threshold"),
            ({"threshold": 2}, "threshold"),
            ({"threshold": True}, "threshold"),
            ({"keys": []}, "keys"),
            ({"keys": None}, "keys"),
            ({"security_version_floor": -1}, "security_version_floor"),
            ({"version": 0}, "version"),
            ({"version": "2"}, "version"),
            ({"expires": "soon"}, "expires"),
            ({"canary": True}, "canary"),
        ):
            document = trust()
            document.update(change)
            self.assertEqual(self.config_error(document), field)

    def test_each_member_of_a_key_is_named_when_it_is_wrong(self):
        for change, field in (
            ({"algorithm": "rsa"}, "algorithm"),
            ({"public": "00" * 59}, "public"),
            ({"public": "00" * 60, "id": hexed(sha(bytes(60))[:8])}, "public"),
            ({"public": "xx" * 64}, "public"),
            ({"public": 5}, "public"),
            ({"id": hexed(Key(9).id)}, "id"),
            ({"id": None}, "id"),
            ({"expires": 1}, "expires"),
        ):
            document = trust()
            document["keys"][0].update(change)
            self.assertEqual(self.config_error(document), field)

    def test_key_listed_twice_is_refused(self):
        self.assertEqual(self.config_error(trust((KEY, KEY))), "id")

    def test_no_trust_file_means_no_updates(self):
        self.code("no-trust", verify.load_trust, None)

    def test_missing_trust_file_is_a_configuration_error(self):
        with self.assertRaises(ConfigError):
            verify.load_trust("no-such-file.json")


class TrustFile(Case):
    PATH = "trust-test.json"

    def tearDown(self):
        for name in (self.PATH, self.PATH + ".bak"):
            compat.remove_tree(name)

    def test_damaged_file_is_replaced_by_its_second_copy(self):
        trial.write_sealed(self.PATH, trust(floor=1))
        trial.write_sealed(self.PATH + ".bak", trust(floor=1))
        size = os.stat(self.PATH)[6]
        with open(self.PATH, "rb") as f:
            good = f.read()
        for at in range(size):
            bad = bytearray(good)
            bad[at] ^= 1 << at % 8
            with open(self.PATH, "wb") as f:
                f.write(bad)
            found = verify.load_trust(self.PATH)
            self.assertEqual((found.threshold, found.floor, found.keys), (1, 1, {KEY.id: (1, KEY.public)}))

    def test_floor_of_a_second_copy_holds_after_the_file_was_replaced(self):
        trial.write_sealed(self.PATH + ".bak", trust(floor=4))
        with open(self.PATH, "w") as f:
            json.dump(trust(floor=2), f)
        self.assertEqual(verify.load_trust(self.PATH).floor, 4)

    def test_both_copies_damaged_are_a_configuration_error(self):
        for name in (self.PATH, self.PATH + ".bak"):
            with open(name, "w") as f:
                f.write("{")
        with self.assertRaises(ConfigError):
            verify.load_trust(self.PATH)


class Signatures(Case):
    def opened(self, raw, document=None):
        return asyncio.run(verify.open_envelope(raw, verify.Trust(document or trust())))

    def test_manifest_and_its_identity_come_back(self):
        artifact = Artifact(FILES)
        manifest, digest = self.opened(artifact.envelope)
        self.assertEqual((manifest.version, digest), ("2.0.0", artifact.digest))

    def refused(self, raw, document=None, code="signature"):
        self.code(code, verify.open_envelope, raw, verify.Trust(document or trust()))

    def test_changed_manifest_is_refused(self):
        raw = bytearray(Artifact(FILES).envelope)
        raw[raw.find(b"2.0.0")] ^= 1
        self.refused(bytes(raw))

    def test_unsigned_and_foreign_artifacts_are_refused(self):
        self.refused(Artifact(FILES).seal(()).envelope)
        self.refused(Artifact(FILES).seal((Key(9),)).envelope)

    def test_json_is_not_looked_at_before_the_signature_holds(self):
        self.refused(envelope(b"not json", (Key(9),)))

    def test_two_of_three(self):
        keys = (Key(3), Key(5), Key(7))
        document = trust(keys, 2)
        self.opened(Artifact(FILES).seal(keys[1:]).envelope, document)
        self.refused(Artifact(FILES).seal(keys[:1]).envelope, document, "threshold")

    def test_one_key_does_not_count_twice(self):
        keys = (Key(3), Key(5))
        self.refused(Artifact(FILES).seal((keys[0], keys[0])).envelope, trust(keys, 2), "threshold")

    def test_unknown_algorithm_counts_for_nothing(self):
        raw = bytearray(Artifact(FILES).envelope)
        raw[-67] = 9
        self.refused(bytes(raw))

    def test_bad_signature_beside_enough_good_ones_does_no_harm(self):
        artifact = Artifact(FILES)
        count = 6 + len(artifact.manifest)
        raw = bytearray(artifact.seal((Key(9), KEY)).envelope)
        raw[count + 20] ^= 1
        self.opened(bytes(raw))


class Rules(Case):
    def check(self, running="1.0.0", floor=0, facts=FACTS, **members):
        verify.check(parse_manifest(Artifact(FILES, **members).manifest), facts, running, floor)

    def refused(self, code, **case):
        self.code(code, lambda: self.check(**case))

    def test_artifact_for_this_device_passes(self):
        self.check()
        self.check(boards=["*"], runtime="any", running=None)

    def test_another_board(self):
        self.refused("board", boards=["ESP32_GENERIC"])

    def test_another_runtime(self):
        self.refused("runtime", runtime="cpython" if RUNTIME == "micropython" else "micropython")

    def test_another_bytecode_format(self):
        abi = getattr(sys.implementation, "_mpy", 0) & 0xFF
        if abi:
            self.check(mpy=abi)
            self.refused("abi", mpy=abi + 1)
        else:
            self.check(mpy=5)

    def test_expired(self):
        now = clock.now()
        self.check(expires=now + 60)
        self.refused("expired", expires=now - 60)

    def test_expiry_does_not_count_while_the_clock_is_not_set(self):
        saved = clock.now
        clock.now = lambda: 946684900
        try:
            self.check(expires=1)
        finally:
            clock.now = saved

    def test_security_version_below_the_floor(self):
        self.check(floor=3, security_version=3)
        self.refused("security-version", floor=3, security_version=2)

    def test_hardware_revisions(self):
        for hardware, boards in (
            ("2", ["TEST@2"]),
            ("2", ["TEST@2-3"]),
            ("3", ["TEST@2-3"]),
            ("10", ["TEST@2-"]),
            (7, ["TEST@7"]),
            ("1", ["OTHER@1", "TEST@1"]),
            ("9", ["*@9"]),
            ("9", ["TEST"]),
        ):
            self.check(facts=self.facts(hardware=hardware), boards=boards)
        for hardware, boards in (
            ("1", ["TEST@2"]),
            ("4", ["TEST@2-3"]),
            ("1", ["TEST@2-"]),
            ("2", ["OTHER@2"]),
            ("2", ["TEST@"]),
            ("2", ["TEST@x"]),
            ("2", ["TEST@-3"]),
            ("2", ["TEST@2-x"]),
            ("B", ["TEST@2"]),
        ):
            self.refused("board", facts=self.facts(hardware=hardware), boards=boards)
        self.refused("board", boards=["TEST@2"])  # the device does not know its revision

    def facts(self, **more):
        facts = dict(FACTS)
        facts.update(more)
        return facts

    def test_requirements_are_least_versions_or_exact_texts(self):
        facts = self.facts(agent="0.10.0", partitions="ota", firmware="1.4.0", modem="3", hardware="7")
        for requires in (
            {"agent": "0.9"},
            {"agent": "0.10"},
            {"agent": "0.10.0", "partitions": "ota"},
            {"runtime": "1.29.0"},
            {"firmware": "1.4.0-rc1"},
            {"modem": "3", "hardware": "7"},
        ):
            self.check(facts=facts, requires=requires)
        for requires in (
            {"agent": "0.10.1"},
            {"agent": "1"},
            {"partitions": "factory"},
            {"runtime": "1.30"},
            {"flash": "4"},
            {"agent": "0.9", "firmware": "1.5"},
            {"agent": "new"},
            {"modem": "2"},
            {"modem": "3.0"},
            {"hardware": "2"},
        ):
            self.refused("requires", facts=facts, requires=requires)

    def test_older_version_needs_a_signed_permission_that_names_the_running_one(self):
        later = clock.now() + 60
        self.refused("downgrade", running="2.0.1")
        self.refused("downgrade", running="10.0.0")
        self.refused("downgrade", running="2.0.1", downgrade=["2.0.2"], expires=later)
        self.check(running="2.0.1", downgrade=["2.0.1"], expires=later)
        self.refused("expired", running="2.0.1", downgrade=["2.0.1"], expires=clock.now() - 60)

    def test_versions_without_an_order_are_not_older(self):
        for running in ("nightly", "2.0.0-rc2", "2", "2.0"):
            self.check(running=running)

    def test_what_has_a_dash_is_before_the_version_without(self):
        for one, two, wanted in (
            ("2.0.0-rc1", "2.0.0", True),
            ("2.0.0", "2.0.0-rc1", False),
            ("v2-preview.3", "2.0", True),
            ("2.0.0-rc1", "1.9.9", False),
            ("1.9.9", "2.0.0-rc1", True),
            ("2.0.0-rc2", "2.0.0-rc1", False),  # no order
            ("2.0.0-rc1", "2.0.0-rc2", False),
            ("2.0.0+a-1", "2.0.0", False),
            ("2.0.0+9", "2.0.0+2", False),
            ("2026-01-02", "2026-11-24", False),
            ("a1b2c3d", "2.0.0", None),
        ):
            self.assertEqual(verify.before(one, two), wanted, (one, two))

    def test_permission_covers_a_lower_security_version_too(self):
        later = clock.now() + 60
        self.refused("security-version", running="3.0.0", floor=3, security_version=2)
        self.check(running="3.0.0", floor=3, security_version=2, downgrade=["3.0.0"], expires=later)
        self.refused(
            "security-version", running="3.0.1", floor=3, security_version=2, downgrade=["3.0.0"], expires=later
        )

    def test_expired_trust_accepts_no_artifact(self):
        document = trust()
        document["expires"] = clock.now() - 60
        self.code("trust-expired", verify.open_envelope, Artifact(FILES).envelope, verify.Trust(document))

    def test_version_that_runs_already(self):
        self.refused("same-version", running="2.0.0")


if __name__ == "__main__":
    unittest.main()
