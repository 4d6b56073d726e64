# SPDX-License-Identifier: Apache-2.0
"""A board that is updated by a patch to what it runs, and one whose patch is broken: the fleet manager chooses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from edgefleet.artifacts.build import Artifact
from examples.demo.judge import Judge, wait_for
from examples.demo.processes import FleetManager
from tests.integration.link import SESSION_BYTES, Link
from tests.integration.rig import Rig

SEED = 20261123
DATA_BYTES = 100_000


@pytest.fixture(scope="module")
def rig(fleet: FleetManager, judge: Judge, link: Link, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(link.through(fleet), judge, tmp_path_factory.mktemp("rig"), "delta-board", heap="192k")
    with rig.switched_on():
        yield rig


def data(version: int) -> bytes:
    """The same but for some bytes."""
    made = bytearray(random.Random(SEED).randbytes(DATA_BYTES))
    for place in range(500, DATA_BYTES, 20_000):
        made[place] = version
    return bytes(made)


def running(rig: Rig) -> str:
    """What the device says that it runs: the first digits of the artifact's id."""
    return str(rig.judge.reported(rig.thing).get("artifact"))


def publish(rig: Rig, version: str) -> dict[str, Any]:
    """With patches for what the device runs, from the releases that the rig has built."""
    return rig.publish(version, "--delta-for", f"thingName:{rig.thing}", "--library", str(rig.folder))


def update(rig: Rig, link: Link, version: str, document: dict[str, Any]) -> tuple[int, dict[str, str]]:
    """(bytes that came down, statusDetails)."""
    before = link.down
    job = "to-" + version.replace(".", "-")
    rig.create_job(job, document)
    status, details = rig.outcome(job, 120)
    assert status == "SUCCEEDED", (details, rig.state())
    rig.wait_running(version)
    return link.down - before, details


def test_board_gets_only_the_patch_for_what_it_runs(rig: Rig, link: Link) -> None:
    rig.add_release("4.0.0", data(1))
    rig.add_release("4.0.1", data(2))
    first = publish(rig, "4.0.0")
    assert "deltas" not in first  # all of the data is new
    assert running(rig) == Artifact.read(rig.folder / "1.0.0").digest[:16]
    update(rig, link, "4.0.0", first)
    wait_for(lambda: running(rig) == Artifact.read(rig.folder / "4.0.0").digest[:16] or None, lambda: running(rig), 30)
    second = publish(rig, "4.0.1")
    (entry,) = second["deltas"]
    assert entry["bytes"] < 3000
    spent, details = update(rig, link, "4.0.1", second)
    assert "delta" not in details
    assert spent < entry["bytes"] + 3 * SESSION_BYTES < DATA_BYTES


def test_broken_patch_is_replaced_by_the_whole_and_the_job_says_so(rig: Rig, link: Link) -> None:
    rig.add_release("4.0.2", data(3))
    document = publish(rig, "4.0.2")
    (entry,) = document["deltas"]
    bucket, key = "edgeagent-artifacts", f"{document['stream']}/delta-{entry['from'][:12]}"
    patch = bytearray(rig.judge.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    patch[len(patch) // 2] ^= 255
    rig.judge.s3.put_object(Bucket=bucket, Key=key, Body=bytes(patch))
    files = rig.judge.iot.describe_stream(streamId=document["stream"])["streamInfo"]["files"]
    arn = "arn:aws:iam::000000000000:role/edgeagent-streams"
    rig.judge.iot.delete_stream(streamId=document["stream"])
    rig.judge.iot.create_stream(streamId=document["stream"], files=files, roleArn=arn)
    spent, details = update(rig, link, "4.0.2", document)
    assert details["delta"], details
    assert spent > DATA_BYTES / 2
