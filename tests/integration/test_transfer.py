# SPDX-License-Identifier: Apache-2.0
"""How updates get to a board: over MQTT and HTTPS, through bad links, cuts, cancels and dead sources."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from examples.demo.judge import Judge, wait_for
from examples.demo.processes import FleetManager
from hil import link_faults
from tests.integration.link import SESSION_BYTES, Link
from tests.integration.rig import Rig

SEED = 20261125
DATA_BYTES = 200_000
KILLS = 6
RATE = 15_000  # bytes a second, where a test needs time in the middle of a download


@pytest.fixture(scope="module")
def rig(fleet: FleetManager, judge: Judge, link: Link, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(link.through(fleet), judge, tmp_path_factory.mktemp("rig"), "transfer-board")
    with rig.switched_on():
        yield rig


@pytest.fixture(scope="module")
def wide(fleet: FleetManager, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A board with more heap: here TLS takes its buffers from it, elsewhere from memory of its own."""
    rig = Rig(fleet, judge, tmp_path_factory.mktemp("wide"), "https-board", heap="192k")
    with rig.switched_on():
        yield rig


@pytest.fixture
def release(rig: Rig, request: pytest.FixtureRequest) -> str:
    """A newer version, with 200 KB of data."""
    number = getattr(rig, "releases", 0) + 1
    rig.releases = number  # type: ignore[attr-defined]
    version = f"4.0.{number}"
    rig.add_release(version, random.Random(SEED + number).randbytes(DATA_BYTES))
    return version


def wait_downloading(rig: Rig, job: str, least: int) -> None:
    wait_for(lambda: rig.percent(job) >= least or None, rig.state, 60)


def create_as_an_operator(rig: Rig, job: str, document: dict[str, Any]) -> None:
    """By the command, which lets the service put URLs in."""
    path = rig.folder / f"{job}.json"
    path.write_text(json.dumps(document))
    rig.fleet.run("job", "create", job, "--document", str(path), "--target", f"thing/{rig.thing}")


def succeeds(rig: Rig, job: str, version: str, seconds: float = 120) -> None:
    status, details = rig.outcome(job, seconds)
    assert (status, details.get("version")) == ("SUCCEEDED", version), (details, rig.state())
    rig.wait_running(version)


def test_over_mqtt(rig: Rig, release: str) -> None:
    rig.create_job("mqtt", rig.publish(release))
    succeeds(rig, "mqtt", release)
    # The heap of the boot in which the board was provisioned is in pieces; a restart mends it.
    assert rig.board.console.count("out of memory") <= 1, rig.board.console


def test_over_https_with_the_urls_that_the_service_puts_in(wide: Rig) -> None:
    rig, release = wide, "4.0.0"
    rig.add_release(release, random.Random(SEED).randbytes(DATA_BYTES))
    document = rig.publish(release, "--https")
    assert set(document["urls"]) == {"envelope", "blocks", "payload"}
    rig.judge.iot.delete_stream(streamId=document["stream"])  # nobody can have it from there
    create_as_an_operator(rig, "https", document)
    succeeds(rig, "https", release)


def test_https_object_that_is_gone_ends_the_job(wide: Rig) -> None:
    rig, release = wide, "4.1.0"
    rig.add_release(release, random.Random(SEED + 1).randbytes(DATA_BYTES))
    document = rig.publish(release, "--https")
    key = f"{document['stream']}/payload"
    rig.judge.s3.delete_object(Bucket="edgeagent-artifacts", Key=key)
    create_as_an_operator(rig, "https-gone", document)
    status, details = rig.outcome("https-gone", 60)
    assert (status, details["reason"]) == ("FAILED", "transfer: HTTP 404 NoSuchKey"), rig.state()


def test_kills_at_random_moments_cost_little(rig: Rig, link: Link, release: str) -> None:
    chance = random.Random(SEED)
    document = {**rig.publish(release), "rate": RATE}
    before = link.down
    rig.create_job("kills", document)
    for n in range(KILLS):
        wait_downloading(rig, "kills", 10 * (n + 1))
        threading.Event().wait(chance.random())  # the moment of the cut is the subject of the test
        rig.board.kill()
    succeeds(rig, "kills", release, 180)
    # 1.06: CBOR, MQTT and TLS around each block.
    spent = link.down - before
    assert spent < DATA_BYTES * 1.06 + (KILLS + 3) * SESSION_BYTES, f"seed {SEED}: {spent} bytes"


def test_links_that_break_again_and_again(rig: Rig, link: Link, release: str) -> None:
    places = [random.Random(SEED).randrange(20_000, 60_000) for _ in range(4)]
    document = rig.publish(release)
    link.proxy.faults = [link_faults.parse(f"{kind}@down:byte:{place}")
                         for kind, place in zip(("reset", "close", "garbage"), places, strict=False)]  # fmt: skip
    link.proxy.bad = len(places)
    rig.board.kill()  # so that the next sessions are the bad ones
    rig.create_job("links", document)
    succeeds(rig, "links", release, 180)
    link.proxy.faults = []
    assert len(link.proxy.struck) >= 2


def test_stream_deleted_in_the_middle_ends_the_job(rig: Rig, release: str) -> None:
    running = rig.judge.reported(rig.thing)["firmware"]
    document = {**rig.publish(release), "rate": RATE}
    rig.create_job("deleted", document)
    wait_downloading(rig, "deleted", 20)
    rig.judge.iot.delete_stream(streamId=document["stream"])
    status, details = rig.outcome("deleted", 30)
    assert status == "FAILED", rig.state()
    assert details["reason"].startswith("stream: ResourceNotFound")
    rig.wait_running(running)


def test_cancelled_download_is_gone_on_with_by_the_next_job(rig: Rig, link: Link, release: str) -> None:
    running = rig.judge.reported(rig.thing)["firmware"]
    document = rig.publish(release)
    rig.create_job("first", {**document, "rate": RATE})
    wait_downloading(rig, "first", 50)
    rig.judge.iot.cancel_job(jobId="first", force=True)
    assert rig.outcome("first")[0] == "CANCELED"
    rig.wait_running(running)
    before = link.down
    rig.create_job("second", document)
    succeeds(rig, "second", release)
    assert link.down - before < DATA_BYTES * 0.6 + 2 * SESSION_BYTES
