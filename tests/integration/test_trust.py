# SPDX-License-Identifier: Apache-2.0
"""Signing keys are exchanged on a real board by a job, and with them the right to publish."""

from __future__ import annotations

import json
from pathlib import Path

from edgefleet.artifacts import rotation, sign
from edgefleet.artifacts.build import Artifact
from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from tests.integration.rig import Rig


def test_keys_are_rotated_and_only_the_new_ones_can_publish(fleet: FleetManager, judge: Judge, folder: Path) -> None:
    rig = Rig(fleet, judge, folder, "trusting-board", heap="144k")
    with rig.switched_on():
        keys = [folder / "new-rsa", folder / "new-lms"]
        for path, kind in zip(keys, ("rsa-2048", "lms-h5"), strict=True):
            sign.generate_key(path, kind)
        step = rotation.rotate(sign.trust_document([rig.key]), sign.trust_document(keys, threshold=2))
        for path in (rig.key, *keys):
            sign.sign(step, path)
        step.write(folder / "step")
        rig.create_job("rotate", json.loads(fleet.run("artifact", "trust-job", str(folder / "step"))))
        status, details = rig.outcome("rotate")
        assert (status, details["version"]) == ("SUCCEEDED", "2"), details

        rig.create_job("old-keys", rig.publish("2.0.0"))
        status, details = rig.outcome("old-keys")
        assert status == "FAILED", details
        assert details["reason"].startswith("signature: 0 valid, 2 needed of version 2"), details

        artifact = Artifact.read(folder / "2.0.0")
        artifact.signatures = []
        for path in keys:
            sign.sign(artifact, path)
        artifact.write(folder / "2.0.0")
        rig.create_job("new-keys", rig.publish("2.0.0"))
        status, details = rig.outcome("new-keys")
        assert status == "SUCCEEDED", (details, rig.state())
        rig.wait_running("2.0.0")
