# SPDX-License-Identifier: Apache-2.0
"""Job operation "trust": keys of version N are replaced by those of N + 1 if both sides signed, whatever is cut."""

import asyncio
import binascii
import json
import os
import unittest

from edgeagent import clock, compat, log
from edgeagent.errors import ConfigError, JobRejected, UpdateError
from edgeagent.jobs import trust as job
from edgeagent.ota import trial, verify
from tests.portable.ota_support import KEY, Artifact, Key, envelope, fresh, refusal, trust
from tests.portable.ota_world import Agent, Job
from tests.portable.signers import LmsKey, RsaKey

OLD = (Key(3), Key(5), Key(7))
NEW = (Key(11), Key(13))
LMS = LmsKey(width=8)


def rotation(keys=NEW, threshold=2, version=2, signers=OLD[:2] + NEW, **members):
    """A signed trust document as a job carries it."""
    text = json.dumps(trust(keys, threshold, version=version, **members)).encode()
    return binascii.b2a_base64(envelope(text, signers)).decode()


class Case(unittest.TestCase):
    def setUp(self):
        log.configure(100)
        self.root = fresh("trust")
        self.path = self.root + "/trust.json"
        self.write(trust(OLD, 2, floor=3))

    def tearDown(self):
        compat.remove_tree(self.root)
        log.configure(log.INFO)

    def write(self, document):
        with open(self.path, "w") as f:
            json.dump(document, f)

    def run_job(self, *envelopes, **members):
        agent = Agent(None, self.root)
        agent.config = type("Config", (), {"trust": self.path})()
        document = {"operation": "trust", "envelopes": list(envelopes)}
        document.update(members)
        return asyncio.run(job.run(Job(agent, document)))

    def trusted(self):
        return verify.load_trust(self.path)

    def refused(self, code, *envelopes):
        before = self.trusted()
        said = refusal(self, code, self.run_job, *envelopes)
        after = self.trusted()
        self.assertEqual((after.version, after.keys, after.floor), (before.version, before.keys, before.floor))
        return said

    def rotated(self, *keys):
        self.assertEqual(sorted(self.trusted().keys), sorted([key.id for key in keys]))


class Accepted(Case):
    def test_the_next_version_signed_by_both_sides_is_in_force(self):
        done = self.run_job(rotation())
        self.assertEqual(done["version"], 2)
        for key in NEW:
            self.assertIn(binascii.hexlify(key.id).decode(), done["keys"])
        self.rotated(*NEW)
        self.assertEqual(self.trusted().threshold, 2)

    def test_artifacts_of_the_old_keys_are_refused_from_then_on(self):
        self.run_job(rotation())
        for keys, good in ((OLD, False), (NEW, True)):
            try:
                asyncio.run(verify.open_envelope(Artifact([("a", b"x")]).seal(keys).envelope, self.trusted()))
                accepted = True
            except UpdateError as error:
                self.assertEqual(error.code, "signature")
                accepted = False
            self.assertEqual(accepted, good)

    def test_doing_it_again_ends_the_same(self):
        first = self.run_job(rotation())
        self.assertEqual(self.run_job(rotation()), first)

    def test_a_chain_leads_over_several_versions_from_wherever_a_device_is(self):
        third = (Key(17),)
        chain = [rotation(), rotation(third, 1, 3, NEW + third)]
        self.assertEqual(self.run_job(*chain)["version"], 3)
        self.rotated(*third)
        self.assertEqual(self.run_job(*chain)["version"], 3)
        self.write(trust(NEW, 2, version=2))
        compat.remove_tree(self.path + ".bak")
        self.assertEqual(self.run_job(*chain)["version"], 3)
        self.rotated(*third)

    def test_expiry_counts_for_the_last_of_a_chain_only(self):
        third = (Key(17),)
        chain = [rotation(expires=clock.now() - 60), rotation(third, 1, 3, NEW + third)]
        self.assertEqual(self.run_job(*chain)["version"], 3)

    def test_keys_of_three_algorithms_sign_together(self):
        mixed = (KEY, RsaKey(), LMS)
        self.write(trust(mixed, 3))
        self.run_job(rotation(NEW, 1, 2, mixed + NEW[:1]))
        self.rotated(*NEW)

    def test_a_device_with_expired_trust_can_still_be_given_the_next_version(self):
        self.write(trust(OLD, 2, expires=clock.now() - 60))
        self.run_job(rotation())
        self.rotated(*NEW)

    def test_the_security_floor_never_falls(self):
        self.run_job(rotation(floor=0))
        self.assertEqual(self.trusted().floor, 3)

    def test_the_floor_of_the_slots_goes_into_the_new_file(self):
        state = trial.status(self.root)
        state["floor"] = 7
        trial.save(self.root, state)
        self.run_job(rotation())
        for name in ("/state.json", "/state.bak"):
            os.unlink(self.root + name)
        self.assertEqual(self.trusted().floor, 7)

    def test_a_document_may_raise_the_floor(self):
        self.run_job(rotation(floor=9))
        self.assertEqual(self.trusted().floor, 9)


class Refused(Case):
    def test_too_few_of_the_old_keys(self):
        self.assertIn("1 valid, 2 needed of version 1", self.refused("threshold", rotation(signers=OLD[:1] + NEW)))

    def test_too_few_of_the_new_keys(self):
        self.assertIn("1 valid, 2 needed of version 2", self.refused("threshold", rotation(signers=OLD + NEW[:1])))

    def test_new_keys_alone_cannot_bring_themselves_in(self):
        self.refused("signature", rotation(signers=NEW))

    def test_one_key_signing_twice_counts_once(self):
        self.refused("threshold", rotation(signers=(OLD[0], OLD[0]) + NEW))

    def test_a_version_that_does_not_follow(self):
        self.refused("trust-version", rotation(version=3))
        self.run_job(rotation())
        self.refused("trust-version", rotation(OLD, 2, 1, OLD + NEW))

    def test_going_back_to_an_earlier_version(self):
        self.write(trust(NEW, 2, version=5))
        self.refused("trust-version", rotation(version=4, signers=OLD + NEW))

    def test_another_document_of_the_version_in_force(self):
        self.run_job(rotation())
        self.refused("trust-version", rotation((Key(21),), 1, 2, OLD + NEW + (Key(21),)))
        self.refused("trust-version", rotation(NEW, 1, 2, OLD + NEW))

    def test_an_expired_document(self):
        self.refused("trust-expired", rotation(expires=clock.now() - 60))

    def test_the_json_is_not_looked_at_before_the_signatures_hold(self):
        for text in (b"{", b'{"keys":' + b"[" * 3800):
            self.refused("signature", binascii.b2a_base64(envelope(text, (Key(21),))).decode())

    def test_a_changed_document(self):
        raw = binascii.a2b_base64(rotation())
        at = raw.find(b'"threshold": 2')
        raw = raw[: at + 13] + b"1" + raw[at + 14 :]
        self.refused("signature", binascii.b2a_base64(raw).decode())

    def test_an_artifact_is_no_trust_document_and_the_other_way_round(self):
        self.write(trust())
        self.refused("trust", binascii.b2a_base64(Artifact([("a", b"x")]).envelope).decode())
        text = json.dumps(trust(version=2)).encode()
        with self.assertRaises(UpdateError) as caught:
            asyncio.run(verify.open_envelope(envelope(text), self.trusted()))
        self.assertEqual(caught.exception.code, "manifest")

    def test_documents_of_another_shape(self):
        for change in ({"keys": []}, {"threshold": 0}, {"threshold": 3}, {"canary": 1}, {"expires": "x"}):
            document = trust(NEW, 2, version=2)
            document.update(change)
            raw = envelope(json.dumps(document).encode(), OLD + NEW)
            self.refused("trust", binascii.b2a_base64(raw).decode())
        self.refused("envelope", "AAAA")
        self.refused("envelope", "")

    def test_jobs_of_another_shape_are_rejected(self):
        for value in (None, [], {}, "", rotation(), [5], [None], 7):
            with self.assertRaises(JobRejected):
                self.run_job(envelopes=value)
        self.rotated(*OLD)

    def test_a_device_without_trust_cannot_be_given_one(self):
        os.unlink(self.path)
        with self.assertRaises(ConfigError):
            self.run_job(rotation())
        self.path = None
        with self.assertRaises(UpdateError) as caught:
            self.run_job(rotation())
        self.assertEqual(caught.exception.code, "no-trust")


class Cut(Exception):
    pass


class Fault(Case):
    """Every operation of the file system that a rotation does, cut before, in the middle and after it, or failing."""

    KINDS = ("before", "torn", "after", "error")

    def attempt(self, at, kind):
        """Rotate with a fault at operation `at`. Returns how many operations there were."""
        count = [0]

        def step(name, *args):
            count[0] += 1
            if count[0] - 1 == at:
                if kind == "error":
                    raise OSError(28)
                if kind == "torn" and name == "write":
                    self.real["write"](args[0], args[1][: len(args[1]) // 2])
                if kind == "after":
                    self.real[name](*args)
                raise Cut
            return self.real[name](*args)

        def write_atomic(path, data, private=False):
            """compat.write_atomic, one operation at a time."""
            step("create", path + ".new")
            step("write", path + ".new", data)
            step("rename", path + ".new", path)

        saved = trial.write_atomic
        trial.write_atomic = write_atomic
        try:
            self.run_job(rotation(floor=5))
        finally:
            trial.write_atomic = saved
        return count[0]

    def setUp(self):
        super().setUp()

        def put(path, data):
            with open(path, "wb") as f:
                f.write(data)

        self.real = {"create": lambda path: put(path, b""), "write": put, "rename": os.rename}

    def test_the_keys_are_the_old_ones_or_the_new_ones_and_the_job_ends_the_same(self):
        operations = self.attempt(-1, "")
        self.assertEqual(operations, 6)
        for at in range(operations):
            for kind in self.KINDS:
                self.tearDown()
                self.setUp()
                try:
                    self.attempt(at, kind)
                except (Cut, UpdateError) as error:
                    if kind == "error":
                        self.assertEqual(error.code, "storage")
                for damaged in (None, self.path, self.path + ".bak"):
                    self.restarted(at, kind, damaged)

    def restarted(self, at, kind, damaged):
        """Power is back: what is in force is one of the two, whichever copy is damaged besides, and so the job ends."""
        saved = {}
        for name in (self.path, self.path + ".bak"):
            saved[name] = compat.read_file(name, 8192)
        if damaged and saved[damaged] and saved[self.path + ".bak"]:
            with open(damaged, "wb") as f:
                f.write(saved[damaged][:-7])
        elif damaged:
            return
        found = self.trusted()
        self.assertIn((found.version, sorted(found.keys)), self.both(), (at, kind, damaged))
        self.assertGreaterEqual(found.floor, 3 if found.version == 1 else 5)
        self.assertEqual(self.run_job(rotation(floor=5))["version"], 2)
        self.rotated(*NEW)
        for name in saved:
            if saved[name] is None:
                compat.remove_tree(name)
            else:
                with open(name, "wb") as f:
                    f.write(saved[name])

    def both(self):
        return [(1, sorted([key.id for key in OLD])), (2, sorted([key.id for key in NEW]))]


class Floor(Case):
    def test_a_risen_floor_is_kept_beside_the_keys(self):
        job.keep_floor(self.path, 8)
        self.assertEqual(self.trusted().floor, 8)
        self.rotated(*OLD)
        job.keep_floor(self.path, 2)
        self.assertEqual(self.trusted().floor, 8)

    def test_it_never_stands_in_the_way(self):
        job.keep_floor(None, 8)
        job.keep_floor(self.root + "/none.json", 8)


if __name__ == "__main__":
    unittest.main()
