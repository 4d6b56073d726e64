# SPDX-License-Identifier: Apache-2.0
"""AWS OTA documents: the artifact as one file, fetched by ranges, with the code-signing signature on top."""

import asyncio
import binascii
import json
import unittest

from edgeagent import compat
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.jobs import afr_ota
from edgeagent.ota import gate, trial
from tests.portable.ota_support import BLOCK, KEY, Artifact, Key, pattern, sha, slot_contents, trust
from tests.portable.ota_world import Job, Reset, Service
from tests.portable.signers import RsaKey
from tests.portable.test_ota_handler import Case
from tests.portable.test_ranges import URL, Server
from tests.portable.test_trust import rotation

FILES = [("app.py", b"VERSION = 2"), ("data.bin", pattern(3 * BLOCK + 77))]


def der(raw):
    out = b""
    for at in (0, 32):
        number = raw[at : at + 32]
        while len(number) > 1 and number[0] == 0 and number[1] < 128:
            number = number[1:]
        if number[0] > 127:
            number = b"\0" + number
        out += bytes([2, len(number)]) + number
    return bytes([0x30, len(out)]) + out


def document(artifact, key=KEY, **changes):
    whole = b"".join(artifact.parts())
    entry = {
        "filepath": "/device/updates",
        "filesize": len(whole),
        "fileid": 0,
        "certfile": "/certificates/authcert.pem",
        "fileType": 0,
        "sig-sha256-ecdsa": binascii.b2a_base64(der(key.sign(sha(whole)))).decode().strip(),
    }
    entry.update(changes.pop("file", {}))
    body = {"protocols": ["MQTT"], "streamname": "AFR_OTA-1", "files": [entry]}
    body.update(changes)
    return {"afr_ota": body}


class Update(Case):
    def setUp(self):
        super().setUp()
        self.artifact = Artifact(FILES)
        self.boot("1.0.0")

    def boot(self, version, cause="soft"):
        super().boot(version, cause)
        self.service = Service([b"".join(self.artifact.parts())])
        self.agent.client = self.service

    def run_job(self, execution=1, **behaviour):
        self.job = Job(self.agent, behaviour.pop("document", None) or document(self.artifact), "job", execution)
        self.reports = self.job.reports
        return asyncio.run(self.service.during(afr_ota.run(self.job)))

    def test_it_is_installed_tried_confirmed_and_reported_as_aws_dashboards_read_it(self):
        self.reset()
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))
        blocks = (len(b"".join(self.artifact.parts())) + BLOCK - 1) // BLOCK
        self.assertIn("/%d" % blocks, self.reports[0][1]["receive"])
        self.assertEqual(
            self.reports[-1][1],
            {"step": "restart", "version": "2.0.0", "self_test": "ready", "updatedBy": "0x1000000"},
        )
        self.boot("2.0.0")
        self.assertEqual(
            self.run_job(),
            {"version": "2.0.0", "previous": "1.0.0", "reason": "accepted  v2.0.0", "updatedBy": "  v1.0.0"},
        )
        self.assertEqual(self.reports[-1][1]["self_test"], "active")
        self.assertEqual(self.reports[-1][1]["updatedBy"], "0x1000000")
        self.assertEqual(self.service.requests, [])

    def test_without_mqtt_among_the_protocols_it_comes_from_the_presigned_url_whatever_its_number(self):
        server = Server(b"".join(self.artifact.parts()))
        self.agent.open_stream = server.open_stream
        self.agent.connected = server.connected
        self.agent.config.ca = self.agent.config.https_ca = "ca.der"
        self.agent.pause = 0
        self.service.close = server.close
        entry = {"update_data_url": URL, "auth_scheme": "aws.s3.presigned", "fileid": 2}
        self.assertRaises(
            Reset,
            lambda: self.run_job(document=document(self.artifact, protocols=["HTTP"], streamname=None, file=entry)),
        )
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))
        self.assertEqual(self.service.requests, [])

    def test_parts_of_any_length_are_cut_at_the_right_places(self):
        # From 128 blocks on the hashes are more than a block themselves; MicroPython's heap is too small for this fake.
        many = 4 if compat.MICROPYTHON else 300
        for execution, size in enumerate((1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 400, many * BLOCK + 5)):
            compat.remove_tree(self.root)
            compat.make_dirs(self.root + "/a")
            with open(self.root + "/a/app.py", "wb") as f:
                f.write(b"VERSION = 1")
            with open(self.root + "/trust.json", "w") as f:
                json.dump(trust(), f)
            self.artifact = Artifact([("app.py", pattern(size))], name="n" * (execution + 1))
            self.boot("1.0.0")
            self.reset(execution=execution + 1)
            self.assertEqual(slot_contents(self.root + "/b"), {"app.py": pattern(size)})

    def test_a_download_goes_on_where_it_stopped(self):
        self.service.drop_after = 5
        self.reset()
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))

    def test_after_a_restart_only_what_is_missing_is_fetched(self):
        job = Job(self.agent, document(self.artifact))
        asyncio.run(self.service.until(5, afr_ota.run(job)))
        self.boot("1.0.0", "power-on")
        self.reset()
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))
        self.assertGreater(max([request["o"] for request in self.service.requests]), 1)
        self.assertLess(self.service.sent, 4)

    def test_a_code_signing_signature_of_another_key_is_refused_before_the_version_may_run(self):
        self.assertIn("code signing", self.refused("signature", document=document(self.artifact, Key(77))))
        self.untouched()
        self.assertFalse(trial.info(self.root, "b")["complete"])

    def test_one_over_another_file_is_refused_too(self):
        other = Artifact([("app.py", b"other")])
        entry = document(other)["afr_ota"]["files"][0]["sig-sha256-ecdsa"]
        self.refused("signature", document=document(self.artifact, file={"sig-sha256-ecdsa": entry}))
        self.untouched()

    def test_the_manifests_own_signature_is_needed_all_the_same(self):
        self.artifact.seal((Key(77),))
        self.boot("1.0.0")
        self.assertIn("signature", self.refused("signature"))
        self.untouched()

    def test_a_file_that_is_no_artifact_is_refused(self):
        for data in (b"x", b"EAM1", pattern(5000), b"EAM1\xff\xff" + pattern(300)):
            self.service.files = [data]
            with self.assertRaises((UpdateError, JobRejected)):
                self.run_job(document=document(self.artifact, file={"filesize": len(data)}))
        self.untouched()

    def test_the_json_is_not_looked_at_before_the_signatures_hold(self):
        text = b'{"payload":' + b"[" * 3800
        raw = b"EAM1" + len(text).to_bytes(2, "big") + text + b"\0" + bytes(9000)
        self.service.files = [raw]
        self.refused("signature", document=document(self.artifact, file={"filesize": len(raw)}))
        self.untouched()

    def test_what_may_stand_beside_it_counts(self):
        for name, value in (
            ("window", {"from": "00:00", "to": "00:00", "days": "Xyz"}),
            ("battery", 101),
            ("wait", -1),
            ("rate", "1"),
            ("form", "xml"),
            ("trust", 7),
        ):
            made = document(self.artifact)
            made[name] = value
            with self.assertRaises(JobRejected) as caught:
                self.run_job(document=made)
            self.assertIn("envelopes" if name == "trust" else name, str(caught.exception))
        self.untouched()
        made = document(self.artifact)
        made.update({"battery": 30, "wait": 0})
        self.assertIn("battery", self.refused("gate", document=made))
        made = document(self.artifact)
        made["form"] = "json"
        self.reset(document=made)
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))

    def test_keys_that_come_with_it_are_in_force_before_it_is_looked_at(self):
        new = Key(77)
        self.artifact.seal((new,))
        self.boot("1.0.0")
        made = document(self.artifact, new)
        made["trust"] = [rotation((new,), 1, 2, (KEY, new))]
        self.reset(document=made)
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))

    def test_while_a_gate_is_closed_nothing_is_called_ready(self):
        answers = [False, True]
        self.agent.hooks["may_update"] = lambda stage: answers.pop(0) if answers else True
        saved, gate._POLL_S = gate._POLL_S, 0.001
        try:
            self.reset()
        finally:
            gate._POLL_S = saved
        wanted = {"step": "waiting", "version": "2.0.0", "reason": "application: returned False"}
        self.assertEqual(self.reports[0][1], wanted)

    def test_a_wrong_file_size_is_refused(self):
        for change in (-1, 1, 4096):
            size = len(b"".join(self.artifact.parts())) + change
            with self.assertRaises((UpdateError, JobRejected)):
                self.run_job(document=document(self.artifact, file={"filesize": size}))
        self.untouched()

    def test_a_malformed_document_is_rejected_naming_the_member(self):
        good = document(self.artifact)["afr_ota"]["files"][0]
        for changes, named in (
            ({"protocols": ["BLE"]}, "protocols"),
            ({"protocols": ["HTTP"]}, "update_data_url"),
            ({"protocols": ["HTTP"], "file": {"update_data_url": "http://plain"}}, "update_data_url"),
            ({"protocols": 7}, "protocols"),
            ({"streamname": "a/b"}, "streamname"),
            ({"streamname": ""}, "streamname"),
            ({"streamname": 7}, "streamname"),
            ({"streamname": "x" * 129}, "streamname"),
            ({"files": []}, "files"),
            ({"files": [good, good]}, "files"),
            ({"files": 7}, "files"),
            ({"file": {"fileid": 256}}, "fileid"),
            ({"file": {"fileid": True}}, "fileid"),
            ({"file": {"fileid": "0"}}, "fileid"),
            ({"file": {"filesize": 0}}, "filesize"),
            ({"file": {"filesize": None}}, "filesize"),
            ({"file": {"sig-sha256-ecdsa": 7}}, "sig-sha256-ecdsa"),
            ({"file": {"sig-sha256-ecdsa": ""}}, "sig-sha256-ecdsa"),
            ({"file": {"sig-sha256-ecdsa": "AAAA"}}, "sig-sha256-ecdsa"),
            ({"file": {"sig-sha256-ecdsa": good["sig-sha256-ecdsa"][:40]}}, "sig-sha256-ecdsa"),
        ):
            with self.assertRaises(JobRejected) as caught:
                self.run_job(document=document(self.artifact, **changes))
            self.assertIn(named, str(caught.exception))
        for body in (None, 7, [], {}):
            with self.assertRaises(JobRejected):
                self.run_job(document={"afr_ota": body})

    def test_rsa_code_signing_by_a_key_of_the_trust_file(self):
        key = RsaKey()
        with open(self.root + "/trust.json", "w") as f:
            json.dump(trust((KEY, key)), f)
        self.reset(document=self.rsa(key.sign))
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))

    def rsa(self, sign):
        """The document as AWS makes it with an RSA signing profile: one signature, under its own name."""
        made = document(self.artifact)
        entry = made["afr_ota"]["files"][0]
        del entry["sig-sha256-ecdsa"]
        signature = sign(sha(b"".join(self.artifact.parts())))
        entry["sig-sha256-rsa"] = binascii.b2a_base64(signature).decode().strip()
        return made

    def test_rsa_code_signing_of_a_stranger_or_of_another_file_is_refused(self):
        key = RsaKey()
        self.refused("signature", document=self.rsa(key.sign))  # not in the trust file
        with open(self.root + "/trust.json", "w") as f:
            json.dump(trust((KEY, key)), f)
        self.boot("1.0.0")
        self.refused("signature", document=self.rsa(lambda digest: key.sign(sha(b"other"))))
        self.boot("1.0.0")
        self.refused("signature", document=self.rsa(KEY.sign))  # ECDSA under the name of RSA
        self.untouched()
        for value in (7, None):
            made = self.rsa(key.sign)
            made["afr_ota"]["files"][0]["sig-sha256-rsa"] = value
            with self.assertRaises(JobRejected):
                self.run_job(document=made)

    def test_versions_that_are_no_three_numbers_have_no_packed_form(self):
        self.assertEqual(afr_ota._packed("1.2.3"), "0x1020003")
        for version in ("", "1.2", "1.2.3-rc1", "a.b.c", "none"):
            self.assertIsNone(afr_ota._packed(version))


if __name__ == "__main__":
    unittest.main()
