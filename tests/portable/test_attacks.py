# SPDX-License-Identifier: Apache-2.0
"""The attacks that the Uptane standard names, against the real job handler: each is refused with its own code.

Source: Uptane Standard 2.1.0 section 4 (threat model); the codes are those of docs/ota.md.
"""

import binascii
import json
import os
import unittest

from edgeagent import clock
from edgeagent.ota import trial
from tests.portable import test_ota_handler
from tests.portable.ota_support import (
    BLOCK,
    KEY,
    RUNTIME,
    Artifact,
    Key,
    envelope,
    pattern,
    slot_contents,
    trust,
)
from tests.portable.signers import LmsKey, RsaKey
from tests.portable.test_ota_handler import FILES

STOLEN = Key(99)


class Case(test_ota_handler.Case):
    def serve(self, *parts):
        """What the attacker puts into the stream; the job document fits it."""
        self.boot("1.0.0")
        self.service.files = list(parts)
        sizes = [len(part) for part in parts]
        self.document = {
            "operation": "ota",
            "stream": "s1",
            "artifact": {"envelope": sizes[0], "blocks": sizes[1], "payload": sizes[2]},
        }

    def stopped(self, code, written=False, execution=1):
        """The attack fails with `code`; the old version runs on. written: verified blocks may be in the idle slot."""
        reason = self.refused(code, document=self.document, execution=execution)
        if not written:
            self.assertNotIn(2, [request["f"] for request in self.service.requests])
            self.assertNotIn("b", os.listdir(self.root))
        self.assertFalse(trial.info(self.root, "b")["complete"] and "b" in os.listdir(self.root))
        self.untouched()
        return reason

    def trust(self, document):
        with open(self.root + "/trust.json", "w") as f:
            json.dump(document, f)

    def install(self, artifact, execution):
        """An honest update, confirmed."""
        running = self.running
        self.artifact = artifact
        self.boot(running)
        self.reset(execution=execution)
        self.boot(artifact.document["version"])
        self.run_job(execution=execution)

    def boot(self, version, cause="soft"):
        self.running = version
        super().boot(version, cause)


class ArbitrarySoftware(Case):
    def test_artifact_of_a_stranger(self):
        self.serve(*Artifact(FILES).seal((STOLEN,)).parts())
        self.stopped("signature")

    def test_unsigned_artifact(self):
        self.serve(*Artifact(FILES).seal(()).parts())
        self.stopped("signature")

    def test_signature_moved_to_another_manifest(self):
        signed = Artifact(FILES)
        other = Artifact([("app.py", b"evil")])
        raw = envelope(other.manifest, ())[:-1] + signed.envelope[6 + len(signed.manifest) :]
        self.serve(raw, other.blocks, other.payload)
        self.stopped("signature")

    def test_stranger_who_uses_the_id_of_a_trusted_key(self):
        class Impostor(Key):
            pass

        impostor = Impostor(99)
        impostor.id = KEY.id
        self.serve(*Artifact(FILES).seal((impostor,)).parts())
        self.stopped("signature")

    def test_algorithm_swapped_under_a_trusted_key(self):
        class Swapped(LmsKey):
            pass

        swapped = Swapped(width=8)
        swapped.id = KEY.id
        self.serve(*Artifact(FILES).seal((swapped,)).parts())
        self.stopped("signature")


class KeyCompromise(Case):
    def test_fewer_stolen_keys_than_the_threshold(self):
        self.trust(trust((KEY, STOLEN), 2))
        self.serve(*Artifact(FILES).seal((STOLEN,)).parts())
        self.assertIn("1 valid, 2 needed", self.stopped("threshold"))

    def test_stolen_key_that_signs_many_times(self):
        self.trust(trust((KEY, STOLEN), 2))
        self.serve(*Artifact(FILES).seal((STOLEN,) * 8).parts())
        self.stopped("threshold")

    def test_stolen_keys_of_one_algorithm_do_not_make_up_for_another(self):
        self.trust(trust((KEY, RsaKey(), LmsKey(width=8)), 3))
        self.serve(*Artifact(FILES).seal((KEY, RsaKey())).parts())
        self.stopped("threshold")

    def test_stolen_key_cannot_rotate_itself_into_sole_power(self):
        self.trust(trust((KEY, STOLEN), 2))
        text = json.dumps(trust((STOLEN,), 1, version=2)).encode()
        self.serve(*Artifact(FILES).seal((STOLEN,)).parts())
        self.document["trust"] = [binascii.b2a_base64(envelope(text, (STOLEN,))).decode()]
        self.stopped("threshold")

    def test_stolen_key_is_worth_nothing_after_a_rotation_that_comes_with_the_update(self):
        self.trust(trust((STOLEN, KEY), 1))
        fresh = Key(41)
        text = json.dumps(trust((fresh,), 1, version=2)).encode()
        chain = [binascii.b2a_base64(envelope(text, (KEY, fresh))).decode()]
        self.serve(*Artifact(FILES).seal((STOLEN,)).parts())
        self.document["trust"] = chain
        self.stopped("signature")
        self.serve(*Artifact(FILES).seal((fresh,)).parts())
        self.document["trust"] = chain
        self.reset(document=self.document, execution=2)


class Rollback(Case):
    def test_an_older_release_that_was_once_good(self):
        self.serve(*Artifact(FILES, version="0.9.0").parts())
        self.stopped("downgrade")

    def test_an_older_release_signed_to_go_back_from_another_version(self):
        later = clock.now() + 600
        self.serve(*Artifact(FILES, version="0.9.0", downgrade=["1.1.0"], expires=later).parts())
        self.stopped("downgrade")
        self.serve(*Artifact(FILES, version="0.9.0", downgrade=["1.0.0"], expires=later).parts())
        self.reset(document=self.document, execution=2)

    def test_a_release_with_a_lower_security_version(self):
        self.install(Artifact(FILES, security_version=3), 1)
        old = Artifact([("app.py", b"hole")], version="3.0.0", security_version=2)
        self.artifact = old
        self.boot("2.0.0")
        self.refused("security-version", execution=2)

    def test_loss_of_the_state_does_not_open_the_door_again(self):
        self.install(Artifact(FILES, security_version=3), 1)
        for name in ("/state.json", "/state.bak"):
            with open(self.root + name, "wb") as f:
                f.write(b"rot")
        self.artifact = Artifact([("app.py", b"hole")], version="3.0.0", security_version=2)
        self.boot("2.0.0")
        self.refused("security-version", execution=2)

    def test_neither_does_a_trust_file_that_was_put_in_its_place(self):
        self.install(Artifact(FILES, security_version=3), 1)
        self.trust(trust(floor=0))
        self.artifact = Artifact([("app.py", b"hole")], version="3.0.0", security_version=2)
        self.boot("2.0.0")
        self.refused("security-version", execution=2)

    def test_the_floor_stays_when_a_permission_lets_an_older_version_in(self):
        self.install(Artifact(FILES, security_version=3), 1)
        back = Artifact(
            [("app.py", b"old")], version="1.5.0", security_version=1, downgrade=["2.0.0"], expires=clock.now() + 600
        )
        self.install(back, 2)
        self.assertEqual(self.status()["floor"], 3)
        self.artifact = Artifact([("app.py", b"hole")], version="1.6.0", security_version=2)
        self.boot("1.5.0")
        self.refused("security-version", execution=3)

    def test_an_expired_permission_on_a_device_that_does_not_know_the_time(self):
        saved = clock.now
        later = saved() + 600
        clock.now = lambda: 946684900
        try:
            for level, code in ((1, "downgrade"), (0, "security-version")):
                self.trust(trust(floor=1))
                old = Artifact(FILES, version="0.5.0", security_version=level, downgrade=["1.0.0"], expires=later)
                self.serve(*old.parts())
                self.stopped(code)
        finally:
            clock.now = saved

    def test_a_release_candidate_after_its_release(self):
        self.serve(*Artifact(FILES, version="1.0.0-rc1").parts())
        self.stopped("downgrade")


class Freeze(Case):
    def test_an_artifact_that_was_kept_back_until_it_expired(self):
        self.serve(*Artifact(FILES, expires=clock.now() - 1).parts())
        self.stopped("expired")

    def test_a_device_that_is_kept_from_newer_keys(self):
        self.trust(trust(expires=clock.now() - 1))
        self.serve(*Artifact(FILES).parts())
        self.stopped("trust-expired")


class SlowRetrieval(Case):
    def test_a_service_that_falls_silent(self):
        self.serve(*self.artifact.parts())
        self.service.limit = 5
        self.stopped("transfer", written=True)

    def test_a_service_that_never_answers(self):
        self.serve(*self.artifact.parts())
        self.service.mute = True
        self.stopped("transfer")


class PartialBundle(Case):
    def test_a_part_is_withheld(self):
        self.serve(*self.artifact.parts())
        answer = self.service._answer

        async def refuse_payload(topic, request, form):
            self.service.reject = {"o": "ResourceNotFound", "m": "file"} if request["f"] == 2 else None
            await answer(topic, request, form)

        self.service._answer = refuse_payload
        self.stopped("stream", written=True)

    def test_the_end_of_the_payload_is_withheld(self):
        self.serve(*self.artifact.parts())
        self.service.files[2] = self.artifact.payload[: 5 * BLOCK]
        self.stopped("transfer", written=True)

    def test_a_job_that_leaves_the_end_out(self):
        short = self.artifact.payload[: 5 * BLOCK]
        self.serve(self.artifact.envelope, self.artifact.blocks, short)
        self.stopped("size")


class MixAndMatch(Case):
    def test_hash_list_and_payload_of_another_signed_release(self):
        other = Artifact([("app.py", b"VERSION = 3"), ("data.bin", pattern(12 * BLOCK, 9))], version="3.0.0")
        self.serve(self.artifact.envelope, other.blocks, other.payload)
        self.stopped("bundle", written=True)
        self.assertEqual(slot_contents(self.root + "/b"), {})


class MixedBundle(Case):
    def test_payload_of_another_signed_release(self):
        other = Artifact([("app.py", b"VERSION = 3"), ("data.bin", pattern(12 * BLOCK, 9))], version="3.0.0")
        self.serve(self.artifact.envelope, self.artifact.blocks, other.payload)
        self.assertIn("block 0", self.stopped("block-hash", written=True))

    def test_payload_that_changes_half_way(self):
        other = Artifact([("app.py", b"VERSION = 2"), ("data.bin", pattern(12 * BLOCK, 9))], version="3.0.0")
        mixed = self.artifact.payload[: 6 * BLOCK] + other.payload[6 * BLOCK :]
        self.serve(self.artifact.envelope, self.artifact.blocks, mixed)
        self.assertIn("block 6", self.stopped("block-hash", written=True))


class EndlessData(Case):
    def test_a_job_that_announces_more_than_the_manifest(self):
        parts = self.artifact.parts()
        self.serve(parts[0], parts[1], parts[2] + bytes(3 * BLOCK))
        self.stopped("size")

    def test_an_envelope_without_end(self):
        document = self.artifact.job()
        document["artifact"]["envelope"] = 1 << 20
        with self.assertRaises(Exception) as caught:
            self.run_job(document=document)
        self.assertIn("artifact.envelope", str(caught.exception))
        self.assertEqual(self.service.requests, [])

    def test_blocks_larger_than_asked_for(self):
        self.serve(*self.artifact.parts())

        def swollen(body):
            body["p"] = binascii.b2a_base64(bytes(6000)).decode().strip()
            return [body]

        self.service.wrap = swollen
        self.stopped("size")

    def test_blocks_behind_the_end_are_dropped(self):
        self.serve(*self.artifact.parts())

        def more(body):
            extra = dict(body)
            extra["i"] = 1 << 20
            return [extra, body, extra]

        self.service.wrap = more
        self.reset(document=self.document, execution=2)
        self.assertEqual(slot_contents(self.root + "/b"), dict(FILES))


class WrongImage(Case):
    def test_an_image_of_another_type(self):
        self.serve(*Artifact(FILES, type="firmware").parts())
        self.stopped("type")

    def test_an_artifact_for_another_board(self):
        self.serve(*Artifact(FILES, boards=["RPI_PICO_W"]).parts())
        self.stopped("board")

    def test_an_artifact_for_another_hardware_revision(self):
        self.serve(*Artifact(FILES, boards=["TEST@2-"]).parts())
        self.agent.config.device_configuration = {"hardware": "1"}
        self.stopped("board")
        self.serve(*Artifact(FILES, boards=["TEST@2-"]).parts())
        self.agent.config.device_configuration = {"hardware": "2"}
        self.reset(document=self.document, execution=2)

    def test_a_device_whose_hardware_revision_is_no_number(self):
        for hardware in (None, "B", [2], {}):
            self.serve(*Artifact(FILES, boards=["TEST@2-"]).parts())
            self.agent.config.device_configuration = {"hardware": hardware}
            self.stopped("board")

    def test_an_artifact_for_another_product(self):
        for execution, (product, good) in enumerate((("pump", False), (None, False), ("lock", True))):
            self.serve(*Artifact(FILES, requires={"product": "lock"}).parts())
            self.agent.config.device_configuration = {"product": product} if product else {}
            if good:
                self.reset(document=self.document, execution=execution)
            else:
                self.stopped("requires", execution=execution)

    def test_an_artifact_for_another_runtime(self):
        self.serve(*Artifact(FILES, runtime="cpython" if RUNTIME == "micropython" else "micropython").parts())
        self.stopped("runtime")

    def test_an_artifact_that_needs_another_partition_table(self):
        self.serve(*Artifact(FILES, requires={"partitions": "ota"}).parts())
        self.stopped("requires")

    def test_a_configuration_cannot_make_the_board_another_one(self):
        self.serve(*Artifact(FILES, boards=["RPI_PICO_W"]).parts())
        self.agent.config.device_configuration = {"board": "RPI_PICO_W"}
        self.stopped("board")

    def test_something_that_is_no_artifact_at_all(self):
        for execution, raw in enumerate((b"\xe9" + bytes(200), b"{}", bytes(4096))):
            self.serve(raw, self.artifact.blocks, self.artifact.payload)
            self.stopped("envelope", execution=execution)


if __name__ == "__main__":
    unittest.main()
